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
        batch_size: images in one denoising run, unless the caller says otherwise.
    """

    steps: int
    guidance: float
    scheduler: str | None = None
    size: tuple[int, int] | None = None
    batch_size: int = 4


PRESETS = {
    "embedded": Preset(steps=30, guidance=2.5, scheduler="ddpm"),  # fresh noise in every step mends early mistakes
    # Demos of the release: Euler, merge step 30 of 50, 512 x 768 (SDXL 864 x 1152); paper: guidance 5.
    "sd15": Preset(steps=50, guidance=5.0, scheduler="euler", size=(512, 768)),
    "sdxl": Preset(steps=50, guidance=5.0, scheduler="euler", size=(864, 1152), batch_size=1),
}
