"""Face parsing, photo -> label map, behind one protocol."""

from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from consistentid.errors import WeightsNotFound
from consistentid.faces.crops import PORTRAIT_SCALE, Square, crop_square
from consistentid.faces.detection import DetectedFace
from consistentid.faces.regions import LABEL_NAMES

CROP_SCALE = 2.4  # side of the embedded parser's crop / side of the face box: with hair, neck and clothes
IMAGE_MEAN = (0.485, 0.456, 0.406)  # of ImageNet, as in SegFormer's and BiSeNet's releases
IMAGE_STD = (0.229, 0.224, 0.225)

_FINEST = 512  # px; larger crops are classified at this size and enlarged
_UPRIGHT = 8.0  # degrees; heads tilted further are turned upright for the parser
_TURNING_ROOM = 1.45  # a square turned by any angle fits into a square of sqrt(2) times its side

# How other parsers name the classes of CelebAMask-HQ -> our number.
_SYNONYMS = {
    **{name: index for index, name in enumerate(LABEL_NAMES)},
    "face": 1, "skin_other": 1, "l_brow": 2, "r_brow": 3, "left_eyebrow": 2, "right_eyebrow": 3, "l_eye": 4,
    "r_eye": 5, "eye_g": 6, "eyeglass": 6, "eyeglasses": 6, "eye_glasses": 6, "l_ear": 7, "r_ear": 8, "ear_r": 9,
    "ear_ring": 9, "earrings": 9, "mouth": 11, "u_lip": 12, "l_lip": 13, "neck_l": 15, "clothes": 16, "clothing": 16,
}  # fmt: skip


class FaceParser(Protocol):
    """Divides a photo into the classes of `regions.LABEL_NAMES`."""

    name: str

    def parse(self, photo: UInt8[np.ndarray, "h w 3"], face: DetectedFace) -> UInt8[np.ndarray, "h2 w2"]:
        """Label map of the whole photo for one of its faces; background where the parser did not look.

        It has the photo's size, or the parser's own resolution when the parser stretches the photo.
        """
        ...


class SegformerParser:
    """Any SegFormer of transformers whose classes are those of CelebAMask-HQ, in any order.

    It looks at a square around the face. The embedded parser's config says how large that square is; other models
    get the framing of CelebAMask-HQ.

    Args:
        source: local folder or hub id.
        offline: never download.
    """

    name = "segformer"

    def __init__(self, source: str | Path, *, offline: bool = False, device: str = "cpu") -> None:
        self.source = str(source)
        self.offline = offline
        self.device = device

    @cached_property
    def _model(self) -> Any:
        from transformers import SegformerForSemanticSegmentation

        try:
            model = SegformerForSemanticSegmentation.from_pretrained(
                self.source, local_files_only=self.offline, dtype="float32"
            )
        except (OSError, ValueError) as error:
            reason = str(error).strip().split("\n")[0]
            raise WeightsNotFound(
                f"no SegFormer face parser at {self.source}; give a local folder or a hub id ({reason})"
            ) from error
        return model.eval().to(self.device)

    @cached_property
    def _labels(self) -> np.ndarray:
        return label_numbers(self._model.config.id2label, source=self.source)

    def parse(self, photo: UInt8[np.ndarray, "h w 3"], face: DetectedFace) -> UInt8[np.ndarray, "h w"]:
        """See `FaceParser.parse`."""
        config = self._model.config
        size = getattr(config, "face_crop_size", 512)
        square = Square.around(face.box, scale=getattr(config, "face_crop_scale", PORTRAIT_SCALE))
        angle = head_tilt(face)
        image = Image.fromarray(photo)
        finest = min(max(1, round(square.side)), _FINEST)
        if abs(angle) <= _UPRIGHT:
            classes = self._classify(crop_square(image, square, size), finest)
            return paste_square(classes, square, height=photo.shape[0], width=photo.shape[1])
        room = square.scaled(_TURNING_ROOM)
        turned = crop_square(image, room, round(size * _TURNING_ROOM)).rotate(angle, Image.Resampling.BICUBIC)
        canvas = Image.new("L", (round(finest * _TURNING_ROOM),) * 2)
        classes = self._classify(_middle(turned, size), finest)
        canvas.paste(Image.fromarray(classes), ((canvas.width - finest) // 2,) * 2)
        upright = np.asarray(canvas.rotate(-angle, Image.Resampling.NEAREST))
        return paste_square(upright, room, height=photo.shape[0], width=photo.shape[1])

    def _classify(self, crop: Image.Image, size: int) -> UInt8[np.ndarray, "s s"]:
        """Our label numbers of a crop, at size x size."""
        import torch
        from torch.nn import functional as F

        with torch.inference_mode():
            logits = self._model(pixel_values=normalised(crop).to(self.device)).logits
            classes = F.interpolate(logits, size=(size, size), mode="bilinear")[0].argmax(0)
        return self._labels[classes.cpu().numpy()]


def head_tilt(face: DetectedFace) -> float:
    """Angle of the line of the eyes in degrees; positive when the eye on the viewer's right is lower."""
    across = face.landmarks[1] - face.landmarks[0]
    return float(np.degrees(np.arctan2(across[1], across[0])))


def _middle(image: Image.Image, size: int) -> Image.Image:
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


def label_numbers(names: dict[int, str], *, source: str) -> UInt8[np.ndarray, " n"]:
    """Our number of each of a parser's classes.

    Raises:
        WeightsNotFound: a class is none of CelebAMask-HQ's.
    """
    table = np.zeros(len(names), np.uint8)
    for index, name in names.items():
        key = name.strip().lower().replace(" ", "_").replace("-", "_")
        if key not in _SYNONYMS:
            raise WeightsNotFound(f"{source} is no face parser: its class {name!r} is not one of CelebAMask-HQ's")
        table[int(index)] = _SYNONYMS[key]
    return table


def normalised(image: Image.Image) -> Any:
    """Float tensor (1, 3, h, w) of an RGB image with ImageNet's mean and deviation removed."""
    import torch

    values = (np.asarray(image, np.float32) / 255 - np.array(IMAGE_MEAN, np.float32)) / np.array(IMAGE_STD, np.float32)
    return torch.from_numpy(values.transpose(2, 0, 1)[None].copy())


def paste_square(
    classes: UInt8[np.ndarray, "s s"], square: Square, *, height: int, width: int
) -> UInt8[np.ndarray, "h w"]:
    """A label map of the whole photo from that of a square; background elsewhere."""
    left, top, side = round(square.left), round(square.top), max(1, round(square.side))
    label_map = Image.new("L", (width, height))
    label_map.paste(Image.fromarray(classes).resize((side, side), Image.Resampling.NEAREST), (left, top))
    return np.asarray(label_map).copy()
