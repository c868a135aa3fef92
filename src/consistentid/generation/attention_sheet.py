"""Attention drawn on pictures."""

from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw

from consistentid.errors import InvalidSettings
from consistentid.generation.explain import Attention, Explanation
from consistentid.generation.portrait import about_several, save_generated, save_png

_TILE = 160  # px
_LINE = 18
_STRENGTH = 0.65  # of the heat over the picture
_ROWS = 4  # moments that are shown besides their mean


def attention_sheet(attention: Attention) -> Image.Image:
    """A column for each token: attention over all moments with its localisation, and below in single ones.

    Blue pixels did not read the token, red ones did most; each tile has its own scale.
    """
    picture = attention.picture.convert("RGB").resize((_TILE, _TILE), Image.Resampling.BICUBIC)
    count = len(attention.maps)
    chosen = [round((k + 1) * count / _ROWS) - 1 for k in range(_ROWS)] if count >= _ROWS else list(range(count))
    rows = [("mean", attention.mean), *((attention.moments[k], attention.maps[k]) for k in chosen)]
    width = (len(attention.tokens) + 1) * _TILE
    sheet = Image.new("RGB", (width, _LINE + len(rows) * (_TILE + _LINE)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, token in enumerate(attention.tokens, start=1):
        number = attention.localisation.get(token)
        name = token if number is None else f"{token} {number:+.2f}"
        draw.text((column * _TILE + 2, 3), name, fill="black")
    for row, (name, maps) in enumerate(rows):
        top = _LINE + row * (_TILE + _LINE)
        draw.text((2, top + _TILE + 2), name, fill="black")
        sheet.paste(picture, (0, top))
        for column, tile in enumerate(maps, start=1):
            sheet.paste(heat_over(picture, tile), (column * _TILE, top))
    return sheet


def heat_over(picture: Image.Image, attention: Float[np.ndarray, "h w"]) -> Image.Image:
    """A picture in grey under the colours of an attention map."""
    import cv2

    low, high = float(attention.min()), float(attention.max())
    scaled = (255 * (attention - low) / max(high - low, 1e-12)).astype(np.uint8)
    large = np.asarray(Image.fromarray(scaled).resize(picture.size, Image.Resampling.BICUBIC))
    colours = Image.fromarray(cv2.applyColorMap(large, cv2.COLORMAP_TURBO)[..., ::-1].copy())
    return Image.blend(picture.convert("L").convert("RGB"), colours, _STRENGTH)


def save_attention_sheet(attention: Attention, path: Path) -> None:
    """Write a sheet as PNG, that of a portrait with its provenance.

    Raises:
        InvalidSettings: the name does not end in .png, or the place cannot be written to.
    """
    if path.suffix.lower() != ".png":
        raise InvalidSettings(f"{path.name}: the sheet is saved as .png")
    sheet = attention_sheet(attention)
    if isinstance(attention, Explanation):
        portrait = attention.portrait
        save_generated(sheet, path, about=about_several([portrait]), marking=portrait.marking)
    else:
        save_png(sheet, path)
