"""Masks for inpainting from a label map, feathered, and the blend that hides their border."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageFilter

from consistentid.errors import InvalidSettings
from consistentid.faces.analysis import FaceAnalysis
from consistentid.faces.regions import EARRING, HAIR, HAT, LEFT_EAR, REGION_NAMES, RIGHT_EAR, region_masks
from consistentid.generation.seam import matched
from consistentid.generation.tasks import Task
from consistentid.images import PhotoSource, load_photo

FEATHER = 0.03  # of the shorter side, when the caller does not say
_HAIR = (HAIR, HAT)
_FOR_AUTOMATIC = ("mask_feather", "mask_match")
MASK_NAMES = (*REGION_NAMES, "hair", "head")


@dataclass(frozen=True, eq=False)
class Blend:
    """What a picture is laid over, and where it shows.

    Attributes:
        original: the picture that was inpainted.
        mask: 255 where only the new picture shows, 0 where only the original does.
        match: whether the new picture gets the colours and the grain that the original has around the mask.
    """

    original: Image.Image
    mask: Image.Image
    match: bool = False

    def over(self, picture: Image.Image) -> Image.Image:
        """The picture inside the mask, the original outside, mixed along the feathered border."""
        original, mask = (image.resize(picture.size, Image.Resampling.BICUBIC) for image in (self.original, self.mask))
        return Image.composite(matched(picture, original, mask) if self.match else picture, original, mask)


def automatic_mask(label_map: UInt8[np.ndarray, "h w"], name: str, *, feather: float = FEATHER) -> Image.Image:
    """A mask of 0..255 around a part of the head.

    The part is grown by the feather before its border is blurred, so that all of it is repainted. Stock pipelines cut
    masks at one half; the soft border is for `Blend`.

    Args:
        label_map: classes of the picture that is inpainted.
        name: one of `MASK_NAMES`.
        feather: width of the soft border as a share of the picture's shorter side; 0 for a hard one.

    Raises:
        InvalidSettings: there is no such mask, the picture does not show the part, or the feather is out of range.
    """
    if name not in MASK_NAMES:
        raise InvalidSettings(f"there is no automatic mask {name!r}; choose from {', '.join(MASK_NAMES)}")
    if not 0 <= feather <= 0.5:
        raise InvalidSettings(f"mask_feather {feather} must be between 0 and 0.5 of the picture's shorter side")
    part = _part(label_map, name)
    if not part.any():
        raise InvalidSettings(f"no {name} is seen in the picture to inpaint; give a mask image instead of a name")
    radius = round(feather * min(label_map.shape))
    if radius == 0:
        return Image.fromarray(part.astype(np.uint8) * 255)
    import cv2

    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    grown = Image.fromarray(cv2.dilate(part.astype(np.uint8) * 255, disc))
    return grown.filter(ImageFilter.GaussianBlur(radius / 2))


def with_automatic_mask(
    inputs: Mapping[str, Any],
    *,
    own: FaceAnalysis,
    size: tuple[int, int],
    analyse: Callable[[PhotoSource], FaceAnalysis],
) -> tuple[dict[str, Any], Blend | None]:
    """The inputs of an inpainting task with a mask's name replaced by the mask, and the blend for its pictures.

    Args:
        inputs: `mask_image` may be one of `MASK_NAMES`; then `image` may be left out, which means the photo itself.
        own: the analysis of the photo.
        size: width and height at which the pipeline runs.
        analyse: analyses another picture.

    Raises:
        InvalidSettings: see `automatic_mask`, or what is for automatic masks was given for another one.
    """
    name = inputs.get("mask_image")
    rest = {key: value for key, value in inputs.items() if key not in _FOR_AUTOMATIC}
    if not isinstance(name, str):
        given = [key for key in _FOR_AUTOMATIC if key in inputs]
        if given:
            raise InvalidSettings(f"{given[0]} is for automatic masks; give the name of one instead of a mask image")
        return rest, None
    picture = inputs.get("image")
    shown = own if picture is None else analyse(picture)
    mask = automatic_mask(shown.label_map, name, feather=float(inputs.get("mask_feather", FEATHER)))
    original = shown.image.resize(size, Image.Resampling.LANCZOS)
    soft = mask.resize(size, Image.Resampling.BILINEAR)
    return {**rest, "image": original, "mask_image": soft}, Blend(original, soft, bool(inputs.get("mask_match")))


def fitted_inputs(inputs: Mapping[str, Any], *, task: Task, size: tuple[int, int]) -> Mapping[str, Any]:
    """The inputs, with the picture at the asked size where the pipeline would take it at its own."""
    picture = inputs.get("image")
    if task.sized or not isinstance(picture, PhotoSource):
        return inputs
    return {**inputs, "image": load_photo(picture).resize(size, Image.Resampling.LANCZOS)}


def size_like(picture: PhotoSource, *, like: tuple[int, int], multiple: int) -> tuple[int, int]:
    """Width and height with the proportions of a picture and about the area of `like`, each side a multiple."""
    image = load_photo(picture)
    scale = (like[0] * like[1] / (image.width * image.height)) ** 0.5
    width, height = (max(multiple, round(side * scale / multiple) * multiple) for side in image.size)
    return width, height


def _part(label_map: UInt8[np.ndarray, "h w"], name: str) -> Bool[np.ndarray, "h w"]:
    if name == "hair":
        return np.isin(label_map, _HAIR)
    regions = region_masks(label_map)
    nothing = np.zeros(label_map.shape, bool)
    if name == "head":
        return regions.get("face", nothing) | np.isin(label_map, (*_HAIR, LEFT_EAR, RIGHT_EAR, EARRING))
    return regions.get(name, nothing)
