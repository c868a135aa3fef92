"""The pictures and networks of a task, from the names given on the command line."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consistentid.cli.options import TaskInputs
from consistentid.errors import InvalidSettings
from consistentid.generation.loading import load_controlnets
from consistentid.generation.masks import MASK_NAMES
from consistentid.generation.settings import TEXT_TO_IMAGE
from consistentid.generation.tasks import task_named
from consistentid.images import load_photo

if TYPE_CHECKING:
    import torch


def task_of(work: TaskInputs) -> str:
    """The task that was named, or that a mask implies.

    Raises:
        InvalidSettings: there is no such task.
    """
    name = work.task or ("inpaint" if work.mask is not None else TEXT_TO_IMAGE)
    task_named(name)
    return name


def inputs_of(work: TaskInputs, *, task: str, photo: Path) -> dict[str, Any]:
    """Arguments of the task's pipeline: pictures loaded, what was not given left out.

    Raises:
        InvalidSettings: the task needs or takes something else.
        UnreadableImage: a picture cannot be read.
    """
    image = work.image
    if image is None and task in {"img2img", "inpaint", "controlnet-inpaint"}:
        image = photo
    control = [load_photo(path) for path in work.control_image]
    inputs: Mapping[str, Any] = {
        "image": None if image is None else load_photo(image),
        "mask_image": _mask(work.mask),
        "mask_feather": work.mask_feather,
        "mask_match": work.mask_match or None,
        "strength": work.strength,
        "control_image": control[0] if len(control) == 1 else control or None,
    }
    if task == "controlnet" and control:  # its control picture is called image
        inputs = {**inputs, "image": inputs["control_image"], "control_image": None}
    return {key: value for key, value in inputs.items() if value is not None}


def components_of(work: TaskInputs, *, dtype: "torch.dtype", offline: bool) -> dict[str, Any]:
    """Networks of the task besides those of the base model, in a type.

    Raises:
        WeightsNotFound: a ControlNet is missing.
    """
    if not work.controlnet:
        return {}
    return {"controlnet": load_controlnets(work.controlnet, dtype=dtype, offline=offline)}


def _mask(name: str | None) -> Any:
    if name is None or name in MASK_NAMES:
        return name
    if not Path(name).exists():
        raise InvalidSettings(f"{name} does not exist, and is no automatic mask; those are {', '.join(MASK_NAMES)}")
    return load_photo(name).convert("L")
