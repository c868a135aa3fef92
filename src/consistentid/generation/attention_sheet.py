"""Attention drawn on portraits."""

from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw

from consistentid.errors import InvalidSettings
from consistentid.generation.explain import Explanation
from consistentid.generation.portrait import about_several, save_generated

_TILE = 160  # px
_LINE = 18
_STRENGTH = 0.65  # of the heat over the portrait
_ROWS = 4  # steps that are shown besides their mean


def attention_sheet(explanation: Explanation) -> Image.Image:
    """A column for each token: attention over all steps with its localisation, and below in single steps.

    Blue pixels did not read the token, red ones did most; each tile has its own scale.
    """
    portrait = explanation.portrait.image.convert("RGB").resize((_TILE, _TILE), Image.Resampling.BICUBIC)
    steps = len(explanation.maps)
    chosen = [round((k + 1) * steps / _ROWS) for k in range(_ROWS)] if steps >= _ROWS else list(range(1, steps + 1))
    rows = [("all steps", explanation.mean), *((f"step {step}", explanation.maps[step - 1]) for step in chosen)]
    width = (len(explanation.tokens) + 1) * _TILE
    sheet = Image.new("RGB", (width, _LINE + len(rows) * (_TILE + _LINE)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, token in enumerate(explanation.tokens, start=1):
        number = explanation.localisation.get(token)
        name = token if number is None else f"{token} {number:+.2f}"
        draw.text((column * _TILE + 2, 3), name, fill="black")
    for row, (name, maps) in enumerate(rows):
        top = _LINE + row * (_TILE + _LINE)
        draw.text((2, top + _TILE + 2), name, fill="black")
        sheet.paste(portrait, (0, top))
        for column, tile in enumerate(maps, start=1):
            sheet.paste(heat_over(portrait, tile), (column * _TILE, top))
    return sheet


def heat_over(portrait: Image.Image, attention: Float[np.ndarray, "h w"]) -> Image.Image:
    """A portrait in grey under the colours of an attention map."""
    import cv2

    low, high = float(attention.min()), float(attention.max())
    scaled = (255 * (attention - low) / max(high - low, 1e-12)).astype(np.uint8)
    large = np.asarray(Image.fromarray(scaled).resize(portrait.size, Image.Resampling.BICUBIC))
    colours = Image.fromarray(cv2.applyColorMap(large, cv2.COLORMAP_TURBO)[..., ::-1].copy())
    return Image.blend(portrait.convert("L").convert("RGB"), colours, _STRENGTH)


def save_attention_sheet(explanation: Explanation, path: Path) -> None:
    """Write a sheet as PNG, with the provenance of its portrait.

    Raises:
        InvalidSettings: the name does not end in .png, or the place cannot be written to.
    """
    if path.suffix.lower() != ".png":
        raise InvalidSettings(f"{path.name}: the sheet is saved as .png")
    portrait = explanation.portrait
    save_generated(attention_sheet(explanation), path, about=about_several([portrait]), marking=portrait.marking)
