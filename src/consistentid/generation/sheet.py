"""One picture of everything: the photo, its regions, the portraits."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from consistentid.errors import InvalidSettings
from consistentid.faces.analysis import FaceAnalysis
from consistentid.generation.portrait import Portrait, about_several, save_generated

_CELL = 256  # px
_GAP = 8
_CAPTION = 22
_PAPER = (255, 255, 255)
_INK = (40, 40, 40)
_COLUMNS = 6


def sheet(analysis: FaceAnalysis, portraits: Sequence[Portrait]) -> Image.Image:
    """The photo and its regions in the first row, the portraits below, each with its name.

    Args:
        analysis: of the photo.
        portraits: with pictures.
    """
    photo = Image.fromarray(analysis.photo)
    square = _around_face(analysis)
    top = [(photo, "photo")] + [
        (Image.fromarray(np.where(mask[..., None], analysis.photo, 0).astype(np.uint8)).crop(square), name)
        for name, mask in analysis.region_masks.items()
    ]
    made = [
        (portrait.image, f"seed {portrait.settings.seed + portrait.settings.index}" + " withheld" * portrait.withheld)
        for portrait in portraits
    ]
    rows = [top] + [made[start : start + _COLUMNS] for start in range(0, len(made), _COLUMNS)]
    columns = max(len(row) for row in rows)
    step = _CELL + _GAP
    title = _title(portraits)
    canvas = Image.new("RGB", (columns * step + _GAP, _CAPTION + _GAP + len(rows) * (step + _CAPTION)), _PAPER)
    _write(canvas, title, (_GAP, _GAP // 2))
    for r, row in enumerate(rows):
        for c, (picture, name) in enumerate(row):
            corner = (_GAP + c * step, _CAPTION + _GAP + r * (step + _CAPTION))
            canvas.paste(_fitted(picture), corner)
            _write(canvas, name, (corner[0] + 2, corner[1] + _CELL + 2))
    return canvas


def save_sheet(analysis: FaceAnalysis, portraits: Sequence[Portrait], path: Path) -> None:
    """Write a sheet as PNG, with the provenance of its portraits.

    Raises:
        InvalidSettings: the name does not end in .png, or the place cannot be written to.
    """
    if path.suffix.lower() != ".png":
        raise InvalidSettings(f"{path.name}: the sheet is saved as .png")
    save_generated(sheet(analysis, portraits), path, about=about_several(portraits), marking=portraits[0].marking)


def _title(portraits: Sequence[Portrait]) -> str:
    return portraits[0].settings.prompt if portraits else ""


def _around_face(analysis: FaceAnalysis) -> tuple[int, int, int, int]:
    """A square that holds every region and the face box, in the photo's pixels; it may reach beyond the photo."""
    left, top, right, bottom = analysis.box
    masks = list(analysis.region_masks.values())
    if masks:
        rows, columns = np.nonzero(np.any(masks, axis=0))
        left, top = min(left, columns.min()), min(top, rows.min())
        right, bottom = max(right, columns.max()), max(bottom, rows.max())
    half = max(right - left, bottom - top) * 0.55
    x, y = (left + right) / 2, (top + bottom) / 2
    return round(x - half), round(y - half), round(x + half), round(y + half)


def _fitted(picture: Image.Image) -> Image.Image:
    """The whole picture inside one cell."""
    scale = _CELL / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    cell = Image.new("RGB", (_CELL, _CELL), _PAPER)
    cell.paste(picture.convert("RGB").resize(size, Image.Resampling.LANCZOS), ((_CELL - size[0]) // 2, 0))
    return cell


def _write(canvas: Image.Image, text: str, corner: tuple[int, int]) -> None:
    ImageDraw.Draw(canvas).text(corner, text, fill=_INK, font=ImageFont.load_default(size=14))
