"""A person put into an existing photo: the face there is repainted, its pose kept, the rest stays as it is."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from consistentid.errors import InvalidSettings
from consistentid.faces.analysis import FaceChoice
from consistentid.faces.crops import Square, crop_square
from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.portrait import Portrait
from consistentid.generation.request import GenerationRequest, PreparedRequest, check_one_person
from consistentid.generation.seam import matched
from consistentid.generation.settings import TEXT_TO_IMAGE
from consistentid.images import PhotoSource

_EDGE = 0.06  # width of the soft end at the crop's border, as a share of its side
STRENGTH = 0.6  # keeps the pose and the light of the face that was there


def put_into(
    generator: PortraitGenerator,
    request: GenerationRequest,
    picture: PhotoSource,
    *,
    face: FaceChoice = "largest",
    **options: Any,
) -> list[Portrait]:
    """Pictures with the person of a request in the place of somebody else.

    The face is cut out as the model's own portraits are framed, repainted at the model's size, and laid back with the
    colours and the grain around it; outside the mask every pixel is the picture's own, at its own size.

    Args:
        generator: makes them.
        request: text-to-image or inpainting; of its `inputs`, `mask_image` may name the part that is repainted (else
            the face), and `strength` say how much it changes.
        picture: where the person is put.
        face: who is replaced, when the picture shows several people.
        **options: as in `Renderer.portraits`.

    Raises:
        InvalidSettings: the request is of several people, of another task, or has a picture or a mask image of its own.
        UnreadableImage, NoFaceFound, FaceNotSelected: the picture cannot be used.
    """
    place = placed(generator, request, picture, face=face)
    return [place.laid_back(portrait) for portrait in generator.render([place.prepared], **options)[0]]


@dataclass(frozen=True, eq=False)
class Place:
    """Where a person is put.

    Attributes:
        prepared: makes the part that is repainted, and leaves it as the model draws it.
        mask: 255 where only the new part shows, 0 where only the picture does, at the model's size.
        picture: the whole one, as it was.
        file: of it, or the picture again when it is in memory.
        crop: the part, as it was.
        corner: its left and top in the picture.
    """

    prepared: PreparedRequest
    mask: Image.Image
    picture: Image.Image
    file: bytes | Image.Image
    crop: Image.Image
    corner: tuple[int, int]

    def laid_back(self, portrait: Portrait) -> Portrait:
        """The whole picture, from the part."""
        whole = self.picture.copy()
        if not portrait.withheld:
            mask = _ending_inside(self.mask.resize(self.crop.size, Image.Resampling.BICUBIC))
            part = portrait.image.resize(self.crop.size, Image.Resampling.BICUBIC)
            whole.paste(matched(part, self.crop, mask), self.corner, mask)
        return replace(portrait, picture=whole, edited=self.file)


def placed(
    generator: PortraitGenerator, request: GenerationRequest, picture: PhotoSource, *, face: FaceChoice = "largest"
) -> Place:
    """The first half of `put_into`, which prepares; what is rendered is then laid back.

    Raises:
        ConsistentIDError: as in `put_into`.
    """
    check_one_person(request, "a place in an existing picture")
    inputs = {"mask_image": "face", "strength": STRENGTH, **request.inputs}
    if request.task not in (TEXT_TO_IMAGE, "inpaint") or not isinstance(inputs["mask_image"], str):
        raise InvalidSettings("a person is put into a picture by inpainting with an automatic mask; leave others out")
    target = generator.analysed(picture, face=face).analysis
    square = Square.portrait(target.box, target.landmarks)
    left, top, side = round(square.left), round(square.top), max(1, round(square.side))
    crop = crop_square(target.image, square, side)
    labels = crop_square(Image.fromarray(target.label_map), square, side, nearest=True)
    chosen = replace(target, photo=np.asarray(crop), label_map=np.asarray(labels))  # not the largest face in the crop
    prepared = generator.prepare(replace(request, task="inpaint", inputs={**inputs, "image": chosen}))
    assert prepared.blend is not None
    # What the model draws around the mask is needed to match its colours, so nothing is laid over it before.
    raw, mask = replace(prepared, blend=None), prepared.blend.mask
    return Place(raw, mask, target.image, _content(picture) or target.image, crop, (left, top))


def _content(picture: PhotoSource) -> bytes | None:
    """The file, which may have credentials of its own; None for a picture in memory."""
    if isinstance(picture, str | Path):
        return Path(picture).expanduser().read_bytes()
    return picture if isinstance(picture, bytes) else None


def _ending_inside(mask: Image.Image) -> Image.Image:
    """The mask with a soft end before the border of the crop, past which the picture stays as it is."""
    values = np.asarray(mask, np.float32)
    ramps = [np.minimum(np.arange(side), np.arange(side)[::-1]) / max(1, _EDGE * side) for side in values.shape]
    return Image.fromarray((values * np.minimum(1, np.minimum(ramps[0][:, None], ramps[1]))).astype(np.uint8))
