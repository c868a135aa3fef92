"""What each family of base model is asked for when the caller leaves it open; data only."""

from dataclasses import dataclass


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
    """

    steps: int
    guidance: float
    smallest_place: float
    scheduler: str | None = None
    size: tuple[int, int] | None = None
    batch_size: int = 4


PRESETS = {
    # Fresh noise in every step mends early mistakes. Its faces fill the picture.
    "embedded": Preset(steps=30, guidance=2.5, smallest_place=0.75, scheduler="ddpm"),
    # Demos of the release: Euler, merge step 30 of 50, 512 x 768 (SDXL 864 x 1152); paper: guidance 5.
    "sd15": Preset(steps=50, guidance=5.0, smallest_place=0.5, scheduler="euler", size=(512, 768)),
    "sdxl": Preset(steps=50, guidance=5.0, smallest_place=0.375, scheduler="euler", size=(864, 1152), batch_size=1),
}
