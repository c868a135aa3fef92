"""Schedulers by name: a table of short names, and any scheduler class of diffusers."""

from typing import Any

from consistentid.errors import InvalidSettings

# short name -> class, changes to the configuration saved with the model
SCHEDULERS: dict[str, tuple[str, dict[str, object]]] = {
    "ddim": ("DDIMScheduler", {}),
    "ddim_trailing": ("DDIMScheduler", {"timestep_spacing": "trailing"}),
    "ddpm": ("DDPMScheduler", {}),
    "deis": ("DEISMultistepScheduler", {}),
    "dpm++": ("DPMSolverMultistepScheduler", {}),
    "dpm++_karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "dpm++_sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "euler_trailing": ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
    "heun": ("HeunDiscreteScheduler", {}),
    "lcm": ("LCMScheduler", {}),
    "tcd": ("TCDScheduler", {}),
    "unipc": ("UniPCMultistepScheduler", {}),
}
_FITTING = {class_name for class_name, _ in SCHEDULERS.values()}  # diffusers' lists leave out some, such as LCM and TCD


def scheduler_named(name: str, *, like: Any) -> Any:
    """A fresh scheduler with the noise schedule of another one.

    Args:
        name: a key of `SCHEDULERS`, or the name of a diffusers scheduler class.
        like: the scheduler saved with the model.

    Raises:
        InvalidSettings: there is no such scheduler, or the model cannot be sampled with it.
    """
    import diffusers
    from diffusers.schedulers.scheduling_utils import SchedulerMixin

    class_name, changes = SCHEDULERS.get(name.lower(), (name, {}))
    if class_name == type(like).__name__ and not changes:
        return type(like).from_config(like.config)
    found: Any = getattr(diffusers, class_name, None) if class_name.isidentifier() else None
    known = isinstance(found, type) and issubclass(found, SchedulerMixin)
    if not known:
        raise InvalidSettings(
            f"there is no scheduler {name!r}; choose one of {', '.join(SCHEDULERS)} or a scheduler class of diffusers"
        )
    if found not in like.compatibles and class_name not in _FITTING:
        raise InvalidSettings(f"scheduler {name!r} does not fit a model made for {type(like).__name__}")
    try:
        return found.from_config(like.config, **changes)
    except ImportError as error:  # some need scipy or torchsde
        raise InvalidSettings(f"scheduler {name!r} needs a package that is not installed: {error}") from None
