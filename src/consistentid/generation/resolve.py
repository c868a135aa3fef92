"""Open settings -> complete settings, by the model's preset and the adapter's configuration."""

from typing import Any

from consistentid.errors import InvalidSettings
from consistentid.faces.regions import REGION_NAMES
from consistentid.generation.presets import Preset
from consistentid.generation.settings import GenerationSettings
from consistentid.identity.config import AdapterConfig


def resolved(
    settings: GenerationSettings, *, preset: Preset, config: AdapterConfig, pipeline: Any
) -> GenerationSettings:
    """The settings with nothing left open but the caption and the regions, which depend on the photo.

    Raises:
        InvalidSettings: a value does not fit the model.
    """
    steps = settings.steps or preset.steps
    changes = {
        "steps": steps,
        "scheduler": settings.scheduler or preset.scheduler or type(pipeline.scheduler).__name__,
        "guidance": preset.guidance if settings.guidance is None else settings.guidance,
        "identity_scale": config.identity_scale if settings.identity_scale is None else settings.identity_scale,
        "merge_step": _merge_step(settings.merge_step, steps=steps, config=config),
        "size": _size(settings.size or preset.size, pipeline=pipeline),
    }
    unknown = sorted(set(settings.regions or ()) - set(REGION_NAMES))
    if unknown:
        raise InvalidSettings(f"there is no region {unknown[0]!r}; choose from {', '.join(REGION_NAMES)}")
    return settings.model_copy(update=changes)


def _merge_step(given: int | float | None, *, steps: int, config: AdapterConfig) -> int:
    if given is None:
        return config.merge_step(steps)
    if isinstance(given, float):
        return round(given * steps) if given > 0 else -1
    return given


def _size(given: tuple[int, int] | None, *, pipeline: Any) -> tuple[int, int]:
    factor = pipeline.vae_scale_factor
    if given is None:
        side = pipeline.unet.config.sample_size
        height, width = (side, side) if isinstance(side, int) else side
        return width * factor, height * factor
    if any(side % factor for side in given):
        raise InvalidSettings(f"size {given[0]} x {given[1]} must be a multiple of {factor} on both sides")
    return given
