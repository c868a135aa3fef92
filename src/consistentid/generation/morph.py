"""Portraits on the way from one person to another."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from consistentid.errors import InvalidSettings
from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.portrait import Portrait, about_several, save_generated
from consistentid.generation.request import GenerationRequest


def morph(
    generator: PortraitGenerator, request: GenerationRequest, *, count: int = 7, **options: Any
) -> list[Portrait]:
    """Portraits of one seed whose share of the second person goes from 0 to 1.

    Args:
        generator: makes them.
        request: of one image, with a second person in `donors.blend`.
        count: portraits, at least 2.
        **options: as in `PortraitGenerator.render`.

    Raises:
        InvalidSettings: there is no second person, several images are asked for, or the count is too small.
        ConsistentIDError: as in `PortraitGenerator.generate`.
    """
    if request.donors.blend is None:
        raise InvalidSettings("a morph leads to a second person; give that person's photo too")
    if count < 2 or request.settings.num_images != 1 or request.settings.blend is not None:
        raise InvalidSettings("a morph has at least 2 portraits, one for each share; leave num_images and blend out")
    shares = [k / (count - 1) for k in range(count)]
    requests = [replace(request, settings=request.settings.model_copy(update={"blend": share})) for share in shares]
    return [portraits[0] for portraits in generator.generate_batch(requests, **options)]


def strip(portraits: Sequence[Portrait]) -> Image.Image:
    """Portraits of one size side by side."""
    pictures = [portrait.image for portrait in portraits]
    width, height = pictures[0].size
    whole = Image.new("RGB", (width * len(pictures), height))
    for k, picture in enumerate(pictures):
        whole.paste(picture, (k * width, 0))
    return whole


def save_strip(portraits: Sequence[Portrait], path: Path) -> None:
    """Write a strip as PNG, with the provenance of its portraits.

    Raises:
        InvalidSettings: the name does not end in .png, or the place cannot be written to.
    """
    if path.suffix.lower() != ".png":
        raise InvalidSettings(f"{path.name}: the strip is saved as .png")
    save_generated(strip(portraits), path, about=about_several(portraits), marking=portraits[0].marking)
