"""Square crops around a face: one framing for the dataset, the image encoder and the evaluation."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from PIL import Image

PORTRAIT_SCALE = 1.7  # side of a portrait crop / side of the face box: the head, some background
_RISE = 0.04  # the centre of the crop lies above that of the box by this share of the side, for the hair
_FACE_SHARE = 0.676  # side of the aligned face / side of the portrait crop: the mean of the crops around boxes
_FACE_PLACE = (0.5, 0.549)  # of the aligned face's middle in the crop, from left and top


@dataclass(frozen=True)
class Square:
    """A square of the photo, in pixels; it may reach past the border."""

    left: float
    top: float
    side: float

    @classmethod
    def around(cls, box: tuple[float, float, float, float], *, scale: float = PORTRAIT_SCALE) -> "Square":
        """The portrait crop of a face box (left, top, right, bottom)."""
        side = scale * max(box[2] - box[0], box[3] - box[1])
        centre_x, centre_y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2 - _RISE * side
        return cls(centre_x - side / 2, centre_y - side / 2, side)

    @classmethod
    def on_face(cls, landmarks: Float[np.ndarray, "5 2"]) -> "Square":
        """The portrait crop in which eyes and nose lie where they do in every other, but for the head's roll."""
        matrix = alignment(landmarks, 2)  # of an aligned face, whose middle is (1, 1)
        middle, face = matrix.sum(1), 2 * float(np.hypot(*matrix[:, 0]))
        side = face / _FACE_SHARE
        return cls(middle[0] - side * _FACE_PLACE[0], middle[1] - side * _FACE_PLACE[1], side)

    @classmethod
    def portrait(cls, box: tuple[float, float, float, float], landmarks: Float[np.ndarray, "5 2"] | None) -> "Square":
        """The portrait crop on the landmarks, or around the box for want of them."""
        return cls.around(box) if landmarks is None else cls.on_face(landmarks)

    def scaled(self, factor: float, *, shift: tuple[float, float] = (0.0, 0.0)) -> "Square":
        """The square zoomed about its centre, which moves by shift (shares of the side)."""
        side = self.side * factor
        centre_x = self.left + self.side * (0.5 + shift[0])
        centre_y = self.top + self.side * (0.5 + shift[1])
        return Square(centre_x - side / 2, centre_y - side / 2, side)

    def points(self, points: Float[np.ndarray, "n 2"], size: int) -> Float[np.ndarray, "n 2"]:
        """Photo coordinates -> coordinates of the crop resized to size x size."""
        return ((points - np.array([self.left, self.top])) * (size / self.side)).astype(np.float32)


def mirror_landmarks(landmarks: Float[np.ndarray, "5 2"], size: int) -> Float[np.ndarray, "5 2"]:
    """The landmarks in the mirrored image of that width: eyes and corners of the mouth exchange their places."""
    return ((landmarks * (-1, 1)) + (size - 1, 0))[[1, 0, 2, 4, 3]].astype(np.float32)


def crop_square(image: Image.Image, square: Square, size: int, *, nearest: bool = False) -> Image.Image:
    """The square, resized to size x size; past the border the outermost pixels are repeated."""
    left, top, side = round(square.left), round(square.top), max(1, round(square.side))
    right, bottom = left + side, top + side
    inside = (max(left, 0), max(top, 0), min(right, image.width), min(bottom, image.height))
    pixels = np.asarray(image.crop(inside))
    border = ((inside[1] - top, bottom - inside[3]), (inside[0] - left, right - inside[2]))
    if any(max(pair) > 0 for pair in border):
        pixels = np.pad(pixels, border + ((0, 0),) * (pixels.ndim - 2), mode="edge")
    filter_ = Image.Resampling.NEAREST if nearest else Image.Resampling.LANCZOS
    return Image.fromarray(pixels).resize((size, size), filter_)


# Where the eyes and the nose base lie in an aligned face (shares of its side), viewer's left eye first: the frame in
# which dlib's recogniser was trained (get_face_chip with padding 0.25).
_ALIGNED = np.array([[0.3180, 0.3142], [0.6685, 0.3142], [0.4934, 0.5852]])


def alignment(landmarks: Float[np.ndarray, "5 2"], size: int, *, zoom: float = 1.0) -> Float[np.ndarray, "2 3"]:
    """Affine map from the pixels of an aligned face of size x size to those of the photo.

    Rotation, scale and shift only, by least squares on the eyes and the nose; zoom < 1 shows more around the face.
    """
    source = ((_ALIGNED - 0.5) * zoom + 0.5) * size
    target = np.asarray(landmarks[:3], np.float64)
    a, b = source - source.mean(0), target - target.mean(0)
    cosine, sine = (a * b).sum(), (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum()
    linear = np.array([[cosine, -sine], [sine, cosine]]) / (a**2).sum()
    shift = target.mean(0) - linear @ source.mean(0)
    return np.concatenate([linear, shift[:, None]], axis=1)


def align_face(
    image: Image.Image,
    landmarks: Float[np.ndarray, "5 2"],
    size: int,
    *,
    zoom: float = 1.0,
    nearest: bool = False,
) -> Image.Image:
    """The face turned upright and scaled to a size x size image; black past the photo's border."""
    matrix = alignment(landmarks, size, zoom=zoom)
    factor = 1 if nearest else max(1, int(np.hypot(*matrix[:, 0])))
    if factor > 1:  # bicubic sampling skips pixels when it shrinks, so shrink by whole steps first
        image, matrix = image.reduce(factor), matrix / factor
    filter_ = Image.Resampling.NEAREST if nearest else Image.Resampling.BICUBIC
    return image.transform((size, size), Image.Transform.AFFINE, tuple(matrix.ravel()), filter_)
