"""Pictures of an analysis: what was found, drawn on the photo."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from consistentid.faces.analysis import FaceAnalysis
from consistentid.faces.crops import Square, crop_square
from consistentid.faces.regions import REGION_NAMES

REGION_COLOURS: dict[str, tuple[int, int, int]] = {
    "face": (84, 155, 235), "ears": (240, 160, 60), "eyes": (60, 200, 120), "nose": (235, 215, 70),
    "mouth": (230, 80, 110),
}  # fmt: skip
_STRENGTH = 0.45  # of a region's colour over the photo
_STRIP_SCALE = 1.9  # side of a strip's tile / side of the face box


def draw_analysis(analysis: FaceAnalysis) -> Image.Image:
    """The photo with its regions tinted, the face's box and, where they are known, the five landmarks."""
    tinted = analysis.photo.astype(np.float32)
    for name in REGION_NAMES:  # the face first: the others lie on it
        mask = analysis.region_masks.get(name)
        if mask is not None:
            tinted[mask] = analysis.photo[mask] * (1 - _STRENGTH) + np.array(REGION_COLOURS[name]) * _STRENGTH
    image = Image.fromarray(tinted.round().astype(np.uint8))
    draw = ImageDraw.Draw(image)
    line = max(1, round((analysis.box[2] - analysis.box[0]) / 100))
    draw.rectangle(analysis.box, outline="white", width=line)
    for x, y in () if analysis.landmarks is None else analysis.landmarks:
        radius = 2 * line
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill="white", outline="black", width=line)
    return image


def draw_faces(
    image: Image.Image, boxes: Sequence[tuple[float, float, float, float]], *, chosen: tuple[float, ...]
) -> Image.Image:
    """The picture with a numbered box around every face, counted from 1; the chosen one is bright.

    Args:
        image: the photo, or what was drawn on it.
        boxes: left, top, right, bottom in pixels.
        chosen: one of them.
    """
    numbered = image.copy()
    draw = ImageDraw.Draw(numbered)
    for number, box in enumerate(boxes, start=1):
        line = max(2, round((box[2] - box[0]) / 40))
        colour = "white" if box == chosen else "darkgrey"
        draw.rectangle(box, outline=colour, width=line)
        size = max(14.0, (box[2] - box[0]) / 5)
        draw.text(
            (box[0] + line, box[1]), str(number), fill=colour, stroke_width=2, stroke_fill="black", font_size=size
        )
    return numbered


def region_strip(analysis: FaceAnalysis, *, size: int = 160) -> Image.Image:
    """The face and each region of it on black, side by side, with their names; size x size each."""
    square = Square.around(analysis.box, scale=_STRIP_SCALE)
    tiles = {"photo": analysis.photo}
    tiles |= {name: np.where(mask[..., None], analysis.photo, 0) for name, mask in analysis.region_masks.items()}
    strip = Image.new("RGB", (size * len(tiles), size + 16), "white")
    draw = ImageDraw.Draw(strip)
    for index, (name, pixels) in enumerate(tiles.items()):
        strip.paste(crop_square(Image.fromarray(pixels), square, size), (index * size, 0))
        draw.text((index * size + size // 2, size + 8), name, fill="black", anchor="mm")
    return strip
