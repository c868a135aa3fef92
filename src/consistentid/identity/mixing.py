"""Faces whose parts come from several photos: of several people, or of one."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce

import numpy as np
from jaxtyping import Float

from consistentid.faces.analysis import FaceAnalysis
from consistentid.identity.control import IDENTITY
from consistentid.prompting.rewording import phrase_of, reworded

Shares = tuple[tuple[FaceAnalysis, float], ...]


@dataclass(frozen=True, eq=False)
class MixedFace:
    """Stands where a `FaceAnalysis` does.

    Attributes:
        usual: the photos that give what `parts` does not name, with their shares, which are positive.
        parts: likewise for some of `control.PARTS`.
        side_by_side: whether every photo of the overall identity gets identity tokens of its own; otherwise their
            embeddings are mixed.
    """

    usual: Shares
    parts: Mapping[str, Shares] = field(default_factory=dict)
    side_by_side: bool = False

    def shares(self, part: str) -> Shares:
        """Who gives a part."""
        return self.parts.get(part, self.usual)

    def faces(self) -> Iterator[FaceAnalysis]:
        """Every photo that gives anything; some come more than once."""
        for shares in (self.usual, *self.parts.values()):
            yield from (face for face, _ in shares)

    @property
    def description(self) -> str | None:
        """The caption of the photo that gives most, with the words of those that give single regions."""
        main = _largest(self.usual).description
        if main is None:
            return None
        donors = {part: _largest(shares).description for part, shares in self.parts.items() if part != IDENTITY}
        phrases = {part: phrase_of(text, part) for part, text in donors.items() if text is not None}
        return reworded(main, {part: phrase for part, phrase in phrases.items() if phrase is not None})

    def identities(self) -> "list[MixedFace]":
        """The faces of the overall identity that get identity tokens of their own."""
        return [MixedFace(((face, 1.0),)) for face, _ in self.shares(IDENTITY)] if self.side_by_side else [self]


def as_mixed(face: FaceAnalysis | MixedFace) -> MixedFace:
    """A face that comes from one photo alone, or is mixed already."""
    return face if isinstance(face, MixedFace) else MixedFace(((face, 1.0),))


def mixed_embedding(shares: Shares) -> Float[np.ndarray, " d"]:
    """The recogniser's embedding of a mixture: between directions along the sphere, between lengths on a line."""
    vectors = [(face.identity_embedding, share) for face, share in shares]
    return reduce(_spherical, vectors)[0]


def _spherical(
    first: tuple[Float[np.ndarray, " d"], float], second: tuple[Float[np.ndarray, " d"], float]
) -> tuple[Float[np.ndarray, " d"], float]:
    """Two vectors with shares -> the one between them with both shares."""
    (a, share_a), (b, share_b) = first, second
    t = share_b / (share_a + share_b)
    length_a, length_b = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    angle = float(np.arccos(np.clip(a @ b / max(length_a * length_b, 1e-12), -1, 1)))
    weights = (1 - t, t) if np.sin(angle) < 1e-6 else np.sin([(1 - t) * angle, t * angle]) / np.sin(angle)
    direction = weights[0] * a / max(length_a, 1e-12) + weights[1] * b / max(length_b, 1e-12)
    return (direction * ((1 - t) * length_a + t * length_b)).astype(np.float32), share_a + share_b


def normalised(shares: Sequence[tuple[FaceAnalysis, float]]) -> Shares:
    """The same shares with a sum of 1; photos without a share are left out."""
    total = sum(share for _, share in shares)
    return tuple((face, share / total) for face, share in shares if share > 0)


def _largest(shares: Shares) -> FaceAnalysis:
    return max(shares, key=lambda one: one[1])[0]
