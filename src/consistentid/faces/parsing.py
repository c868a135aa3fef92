"""Face parsing, photo -> label map, behind one protocol."""

from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from consistentid.errors import WeightsNotFound
from consistentid.faces.crops import align_face, alignment
from consistentid.faces.detection import DetectedFace
from consistentid.faces.regions import LABEL_NAMES

FACE_ZOOM = 0.6  # of `crops.align_face`: about twice the face box, with hair, neck and collar, as in CelebAMask-HQ
IMAGE_MEAN = (0.485, 0.456, 0.406)  # of ImageNet, as in SegFormer's and BiSeNet's releases
IMAGE_STD = (0.229, 0.224, 0.225)

_FINEST = 512  # px; larger faces are classified at this size and enlarged

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

    It sees the face turned upright by its landmarks. The config may say how wide (`face_zoom`, `face_size`); five
    input channels are RGB and the position in that view, which tells where to expect an eye.

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
        from safetensors import SafetensorError
        from transformers import SegformerForSemanticSegmentation

        try:
            model = SegformerForSemanticSegmentation.from_pretrained(
                self.source, local_files_only=self.offline, dtype="float32"
            )
        except (OSError, ValueError, SafetensorError) as error:
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
        size, zoom = getattr(config, "face_size", 512), getattr(config, "face_zoom", FACE_ZOOM)
        view = align_face(Image.fromarray(photo), face.landmarks, size, zoom=zoom)
        side = float(np.hypot(*alignment(face.landmarks, 1, zoom=zoom)[:, 0]))  # of the view, in pixels of the photo
        finest = max(1, min(round(side), _FINEST))
        classes = Image.fromarray(self._classify(view, finest))
        inverse = inverse_affine(alignment(face.landmarks, finest, zoom=zoom))
        whole = (photo.shape[1], photo.shape[0])
        painted = classes.transform(whole, Image.Transform.AFFINE, tuple(inverse.ravel()), Image.Resampling.NEAREST)
        return np.asarray(painted).copy()

    def _classify(self, view: Image.Image, size: int) -> UInt8[np.ndarray, "s s"]:
        """Our label numbers of a view, at size x size."""
        import torch
        from torch.nn import functional as F

        pixels = normalised(view)
        if self._model.config.num_channels == 5:
            pixels = with_position(pixels)
        with torch.inference_mode():
            logits = self._model(pixel_values=pixels.to(self.device)).logits
            classes = F.interpolate(logits, size=(size, size), mode="bilinear")[0].argmax(0)
        return self._labels[classes.cpu().numpy()]


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


def with_position(pixels: Any) -> Any:
    """Tensor (b, 3, h, w) -> (b, 5, h, w): x and y in -1..1 behind the colours."""
    import torch

    batch, _, height, width = pixels.shape
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    return torch.cat([pixels, torch.stack([x, y]).to(pixels).expand(batch, 2, height, width)], 1)


def inverse_affine(matrix: Float[np.ndarray, "2 3"]) -> Float[np.ndarray, "2 3"]:
    """The affine map that undoes another."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.concatenate([linear, -linear @ matrix[:, 2:]], axis=1)
