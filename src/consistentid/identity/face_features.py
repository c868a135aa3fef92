"""What the image encoder says of faces, also of mixed ones."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from consistentid.errors import InvalidSettings
from consistentid.faces.analysis import FaceAnalysis
from consistentid.faces.regions import REGION_NAMES
from consistentid.identity.cached_encoder import CachedImageEncoder
from consistentid.identity.config import Quirks
from consistentid.identity.control import IDENTITY
from consistentid.identity.facial_encoder import FacialEncoder
from consistentid.identity.mixing import MixedFace, Shares, normalised
from consistentid.identity.reference import reference_images


@dataclass(frozen=True)
class PhotoFeatures:
    """Features of one analysed face: of the whole image and of each region the photo shows."""

    whole: Float[Tensor, "t di"]
    regions: dict[str, Float[Tensor, "t di"]]


@dataclass(frozen=True)
class RegionTokens:
    """Region tokens of a batch, as the FacialEncoder takes them.

    Attributes:
        tokens: of every valid slot, row by row, and behind them that of the zero image; None without regions.
        positions: of the words; rows are padded to the same number.
        valid: which slots are used.
        names: region of every valid slot, row by row.
    """

    tokens: Float[Tensor, "m d"] | None
    positions: Int[Tensor, "b n"]
    valid: Bool[Tensor, "b n"]
    names: tuple[str, ...]


class FaceFeatures:
    """Features of every photo of a batch of faces, encoded together.

    Args:
        faces: of the batch.
        images: the encoder.
        quirks: how the adapter's references are cut.
        place: moves a tensor to where the adapter computes, in its type.
    """

    def __init__(
        self,
        faces: Iterable[MixedFace],
        images: CachedImageEncoder,
        *,
        quirks: Quirks,
        place: Callable[[Tensor], Tensor],
    ) -> None:
        distinct = {id(photo): photo for face in faces for photo in face.faces()}
        references = {key: reference_images(photo, quirks) for key, photo in distinct.items()}
        flat = [image for one in references.values() for image in (one.whole, *one.regions.values())]
        encoded = iter(place(images.encode(images.pixels(flat))))
        self._by_photo = {
            key: PhotoFeatures(next(encoded), {name: next(encoded) for name in one.regions})
            for key, one in references.items()
        }

    def shown(self, face: MixedFace) -> list[str]:
        """The regions that a face has, because a photo that is to give them shows them.

        Raises:
            InvalidSettings: the photo that alone is to give a region does not show it.
        """
        found = [name for name in REGION_NAMES if self._showing(face, name)]
        missing = [name for name in face.parts if name not in (IDENTITY, *found)]
        if missing:
            raise InvalidSettings(f"the photo that shall give {missing[0]} does not show it; choose another one")
        return found

    def whole(self, face: MixedFace) -> Float[Tensor, "t di"]:
        """Features of the whole person; those of several photos on a line."""
        return mixed([(self._of(photo).whole, share) for photo, share in face.shares(IDENTITY)])

    def regional(
        self,
        faces: Sequence[MixedFace],
        slots: Sequence[Sequence[tuple[str, int]]],
        *,
        encoder: FacialEncoder,
        nothing: Float[Tensor, "t di"],
    ) -> RegionTokens:
        """Region tokens of a batch; of a region that several photos give they are mixed on a line.

        Args:
            faces: of the batch.
            slots: region and position of each face's words.
            encoder: makes the tokens.
            nothing: features of the zero image.
        """
        n = max(1, *(len(row) for row in slots))
        positions = torch.tensor([[*(position for _, position in row), *[0] * (n - len(row))] for row in slots])
        valid = torch.tensor([[index < len(row) for index in range(n)] for row in slots])
        names = tuple(name for row in slots for name, _ in row)
        given = [self._region(face, name) for face, row in zip(faces, slots, strict=True) for name, _ in row]
        tokens = None
        if given:
            images = [image for photos in given for image, _ in photos]
            made = iter(encoder.region_tokens(torch.stack([*images, nothing])))
            regions = [mixed([(next(made), share) for _, share in photos]) for photos in given]
            tokens = torch.stack([*regions, next(made)])
        return RegionTokens(tokens, positions.to(nothing.device), valid.to(nothing.device), names)

    def _region(self, face: MixedFace, name: str) -> list[tuple[Float[Tensor, "t di"], float]]:
        """Features of a region in the photos that give it, and their shares."""
        return [(self._of(photo).regions[name], share) for photo, share in normalised(self._showing(face, name))]

    def _showing(self, face: MixedFace, name: str) -> Shares:
        return tuple(one for one in face.shares(name) if name in self._of(one[0]).regions)

    def _of(self, photo: FaceAnalysis) -> PhotoFeatures:
        return self._by_photo[id(photo)]


def mixed(tensors: Sequence[tuple[Tensor, float]]) -> Tensor:
    """Weighted sum of tensors; one alone stays as it is."""
    return tensors[0][0] if len(tensors) == 1 else torch.stack([tensor * share for tensor, share in tensors]).sum(0)
