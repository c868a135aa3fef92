"""What each family of base model is asked for when the caller leaves it open; data only."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from consistentid.identity.region_places import Box


@dataclass(frozen=True)
class Preset:
    """Defaults of one family of base models.

    Attributes:
        steps: denoising steps.
        guidance: classifier-free guidance scale.
        scheduler: a name of `schedulers.SCHEDULERS`, None for the one saved with the model.
        size: width, height in pixels; None for the size the model was trained at.
        smallest_place: width and height that each of several people needs, as a share of the model's own size.
        batch_size: images in one denoising run, unless the caller says otherwise.
        region_places: where the regions of every portrait lie, when all are framed alike.
    """

    steps: int
    guidance: float
    smallest_place: float
    scheduler: str | None = None
    size: tuple[int, int] | None = None
    batch_size: int = 4
    region_places: Mapping[str, tuple[Box, ...]] = field(default_factory=dict)


# Of the mean label map of the pictures that the embedded model was trained on.
_EMBEDDED_PLACES: dict[str, tuple[Box, ...]] = {
    "face": ((0.22, 0.09, 0.78, 0.85),),
    "ears": ((0.12, 0.34, 0.26, 0.69), (0.74, 0.34, 0.88, 0.69)),
    "eyes": ((0.3, 0.35, 0.7, 0.49),),
    "nose": ((0.39, 0.41, 0.61, 0.64),),
    "mouth": ((0.34, 0.62, 0.66, 0.78),),
}

PRESETS = {
    # Fresh noise in every step mends early mistakes. Its faces fill the picture.
    "embedded": Preset(steps=30, guidance=1.5, smallest_place=0.75, scheduler="ddpm", region_places=_EMBEDDED_PLACES),
    # Demos of the release: Euler, merge step 30 of 50, 512 x 768 (SDXL 864 x 1152); paper: guidance 5.
    "sd15": Preset(steps=50, guidance=5.0, smallest_place=0.5, scheduler="euler", size=(512, 768)),
    "sdxl": Preset(steps=50, guidance=5.0, smallest_place=0.375, scheduler="euler", size=(864, 1152), batch_size=1),
}
