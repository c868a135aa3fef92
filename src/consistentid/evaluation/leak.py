"""Is one person found in the place of another? For pictures of several people."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from consistentid.evaluation.embedders import cosine

Embedding = Float[np.ndarray, " d"] | None  # None where no face is seen


def identity_matrix(people: Sequence[Embedding], faces: Sequence[Embedding]) -> Float[np.ndarray, "p f"]:
    """Cosine of every person with the face in every place; NaN where one of the two is missing.

    Args:
        people: embeddings of their photos.
        faces: embeddings of what is found in the places, by the same recogniser.
    """
    return np.array(
        [
            [float("nan") if one is None or face is None else float(cosine(one, face)) for face in faces]
            for one in people
        ]
    ).reshape(len(people), len(faces))


def leak(face: Embedding, others: Sequence[Embedding], *, base: Embedding) -> float:
    """How much more a face is like the people beside it than it would be without them: mean difference of cosines.

    0 when nothing leaks, negative when the face is pushed away from the others; NaN without a face.

    Args:
        face: found in somebody's place.
        others: photos of those who are beside.
        base: the same person without them, in a portrait alone, or for want of one in a photo.
    """
    found = identity_matrix(others, [face, base])
    return float(np.mean(found[:, 0] - found[:, 1])) if len(found) else float("nan")
