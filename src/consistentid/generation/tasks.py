"""Which stock pipeline does which task; a new task is a new row."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

from consistentid.errors import InvalidSettings
from consistentid.generation.controlnets import networks_of
from consistentid.generation.settings import TEXT_TO_IMAGE


@dataclass(frozen=True)
class Task:
    """One way of running the denoiser.

    Attributes:
        pipelines: stock diffusers pipeline class for each kind of base model (`sd`, `sdxl`).
        required: arguments of the pipeline the caller must give.
        optional: arguments of the pipeline the caller may give.
        components: networks the pipeline needs besides those of the base model.
        tells_guidance: whether the pipeline hands its guidance scale to a U-Net that reads it (`time_cond_proj_dim`).
        sized: whether the pipeline takes width and height; if not, its picture is resized beforehand.
    """

    pipelines: Mapping[str, str]
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    components: tuple[str, ...] = field(default=())
    sized: bool = True
    tells_guidance: bool = True

    @property
    def keeps_proportions(self) -> bool:
        """Whether the result is a changed picture, and so has its proportions."""
        return self.inpaints or not self.sized

    @property
    def inpaints(self) -> bool:
        """Whether a part of a picture is repainted."""
        return "mask_image" in self.required

    def steps_run(self, steps: int, inputs: Mapping[str, Any], *, pipeline: Any) -> int:
        """How many of the asked steps are run: with a picture to start from, the last ones, a share of `strength`.

        Args:
            steps: of the whole schedule.
            inputs: arguments of the task's pipeline.
            pipeline: of the base model.
        """
        if "strength" not in self.optional:
            return steps
        usual = signature(_pipeline_class(self, pipeline).__call__).parameters["strength"].default
        return min(int(steps * inputs.get("strength", usual)), steps)  # as the stock pipelines count

    def check(self, name: str, inputs: Mapping[str, object], *, components: Mapping[str, object]) -> None:
        """Compare what was given with what the task takes; with an automatic mask the image may be left out.

        Raises:
            InvalidSettings: something is missing or unknown.
        """
        automatic = isinstance(inputs.get("mask_image"), str)
        needed = tuple(key for key in self.required if not (automatic and key == "image"))
        for kind, wanted, allowed, given in (
            ("argument", needed, (*self.required, *self.optional), inputs),
            ("component", self.components, self.components, components),
        ):
            missing = [key for key in wanted if given.get(key) is None]
            if missing:
                raise InvalidSettings(f"task {name!r} needs the {kind} {', '.join(missing)}")
            unknown = [key for key in given if key not in allowed]
            if unknown:
                raise InvalidSettings(f"task {name!r} takes no {kind} {', '.join(unknown)}")


_CONTROL = ("controlnet_conditioning_scale", "control_guidance_start", "control_guidance_end")
TASKS: dict[str, Task] = {
    TEXT_TO_IMAGE: Task({"sd": "StableDiffusionPipeline", "sdxl": "StableDiffusionXLPipeline"}),
    "img2img": Task(
        {"sd": "StableDiffusionImg2ImgPipeline", "sdxl": "StableDiffusionXLImg2ImgPipeline"},
        required=("image",), optional=("strength",), sized=False,
    ),
    "inpaint": Task(
        {"sd": "StableDiffusionInpaintPipeline", "sdxl": "StableDiffusionXLInpaintPipeline"},
        required=("image", "mask_image"), optional=("strength", "padding_mask_crop", "mask_feather", "mask_match"),
    ),
    "controlnet": Task(
        {"sd": "StableDiffusionControlNetPipeline", "sdxl": "StableDiffusionXLControlNetPipeline"},
        required=("image",), optional=_CONTROL, components=("controlnet",),
    ),
    "controlnet-inpaint": Task(
        {"sd": "StableDiffusionControlNetInpaintPipeline", "sdxl": "StableDiffusionXLControlNetInpaintPipeline"},
        required=("image", "mask_image", "control_image"),
        optional=("strength", "mask_feather", "mask_match", *_CONTROL),
        components=("controlnet",), tells_guidance=False,
    ),
}  # fmt: skip


def task_named(name: str) -> Task:
    """The row of the table.

    Raises:
        InvalidSettings: there is no such task.
    """
    if name not in TASKS:
        raise InvalidSettings(f"there is no task {name!r}; choose one of {', '.join(TASKS)}")
    return TASKS[name]


def base_kind(pipeline: Any) -> str:
    """`sdxl` for a base model with two text encoders, else `sd`."""
    return "sdxl" if getattr(pipeline, "text_encoder_2", None) is not None else "sd"


def pipeline_for(task: Task, pipeline: Any, *, components: Mapping[str, Any]) -> Any:
    """The task's stock pipeline around the networks of another one; nothing is copied, no type is changed.

    Args:
        task: row of `TASKS`.
        pipeline: has the networks of the base model.
        components: further networks; they are moved to where the pipeline computes, and stay there.
    """
    pipeline_class = _pipeline_class(task, pipeline)
    if type(pipeline) is pipeline_class and not components:
        return pipeline
    # Not from_pipe: it ends with .to(dtype) on the shared networks, whose types may differ on purpose.
    parts = {**pipeline.config, **pipeline.components}
    for name, given in components.items():
        networks = [network.to(pipeline._execution_device) for network in networks_of(given)]
        parts[name] = networks[0] if len(networks) == 1 else networks
    return pipeline_class(**{name: parts[name] for name in signature(pipeline_class).parameters if name in parts})


def _pipeline_class(task: Task, pipeline: Any) -> Any:
    import diffusers

    return getattr(diffusers, task.pipelines[base_kind(pipeline)])
