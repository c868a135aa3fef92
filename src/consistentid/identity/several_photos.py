"""Several photos of one person: which of them are of that person, how good they are, and what each one gives."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from PIL import Image

from consistentid.faces.analysis import FaceAnalysis, landmarks_of_labels
from consistentid.faces.crops import align_face
from consistentid.faces.regions import REGION_NAMES
from consistentid.identity.mixing import MixedFace, Shares, normalised

Combination = Literal["average", "concatenate", "best"]

_SIZE = 150  # px, at which sharpness is measured
_SHARP = 75.0  # variance of the Laplacian of a face that is just sharp
_WORST = 0.05  # of a photo's quality, so that every photo has a share
# Distance of two embeddings of one person at most, by their length: dlib's own limit (Euclidean), and a cosine of 0.25
# for ArcFace networks, on vectors of length 1.
_SAME = {128: 0.6, 512: 1.22}


def combined(faces: Sequence[FaceAnalysis], how: Combination) -> MixedFace:
    """One face from several photos of a person.

    Args:
        faces: of that person.
        how: `average`: embeddings, features and region tokens weighted by `quality`; `concatenate`: likewise, but every
            photo has identity tokens of its own; `best`: likewise, but each region from the photo that shows it best.
    """
    if len(faces) == 1:
        return MixedFace(((faces[0], 1.0),))
    usual = normalised([(face, quality(face)) for face in faces])
    best = {name: _best(usual, name) for name in REGION_NAMES} if how == "best" else {}
    parts = {name: ((face, 1.0),) for name, face in best.items() if face is not None}
    return MixedFace(usual, parts, side_by_side=how == "concatenate")


def quality(face: FaceAnalysis) -> float:
    """How much of a person a photo shows, in 0..1: how sharp the upright face is, and how straight it looks."""
    import cv2

    landmarks = landmarks_of_labels(face.label_map) if face.landmarks is None else face.landmarks
    grey = align_face(Image.fromarray(face.photo), landmarks, _SIZE).convert("L")
    sharpness = float(cv2.Laplacian(np.asarray(grey, np.float32), cv2.CV_32F).var())
    left, right, nose = landmarks[:3].astype(np.float64)
    across = right - left
    turned = abs(2 * float((nose - (left + right) / 2) @ across) / max(float(across @ across), 1.0))
    return max(_WORST, sharpness / (sharpness + _SHARP) * (1 - min(turned, 1.0)))


def strangers(faces: Sequence[FaceAnalysis]) -> list[int]:
    """Which photos show someone else than the others; none for recognisers whose limit is not known.

    The photo nearest to all others says who it is, if more than half of them agree with it, else the first one.
    """
    limit = _SAME.get(faces[0].identity_embedding.size)
    if limit is None or len({face.identity_embedding.size for face in faces}) > 1:
        return []
    vectors = np.stack([face.identity_embedding for face in faces])
    if vectors.shape[1] != 128:
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)
    middle = int(distances.sum(1).argmin())
    anchor = middle if (distances[middle] < limit).sum() > len(faces) / 2 else 0
    return [index for index in range(len(faces)) if distances[anchor, index] >= limit]


def _best(shares: Shares, region: str) -> FaceAnalysis | None:
    """The photo that shows a region best: by its pixels and the photo's quality."""
    seen = [(share * face.region_masks[region].sum(), face) for face, share in shares if region in face.region_masks]
    return max(seen, key=lambda one: one[0])[1] if seen else None
