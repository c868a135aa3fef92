"""What a file of weights is: its layout by names and shapes, without building a model from it."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from consistentid.errors import WeightsNotFound
from consistentid.faces.bisenet import BiSeNet
from consistentid.identity.adapter import CONFIG_NAME, WEIGHTS_NAME, IdentityAdapter, check_shapes
from consistentid.identity.checkpoint import Base, official_base, official_shapes, read_tensors

Tensors = Mapping[str, Tensor]
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Inspection:
    """What was found in a file or folder.

    Attributes:
        path: the file that holds the tensors.
        kind: which model it is, in words; `UNKNOWN` when nothing fits.
        base: layout of a released checkpoint, else None.
        tensors, parameters: their numbers.
        dtypes: number of tensors of each type.
        sha256: of the file.
        problem: what does not fit the layout, empty when all does.
    """

    path: Path
    kind: str
    base: Base | None
    tensors: int
    parameters: int
    dtypes: dict[str, int]
    sha256: str
    problem: str = ""


def inspect_weights(path: str | Path) -> Inspection:
    """Look into a checkpoint, or a folder of an identity adapter.

    Raises:
        WeightsNotFound: nothing is there, or it cannot be read as tensors.
    """
    path = Path(path).expanduser()
    if (path / CONFIG_NAME).is_file() and (path / WEIGHTS_NAME).is_file():
        return _adapter_folder(path)
    if path.is_dir():
        raise WeightsNotFound(f"{path} holds no {CONFIG_NAME} and {WEIGHTS_NAME}; give a file, or an adapter's folder")
    tensors = read_tensors(path)
    base = official_base(tensors)
    if base is not None:
        name = {"sd15": "SD 1.5", "sdxl": "SDXL"}[base]
        kind, problem = f"released ConsistentID for {name}", _problem(tensors, official_shapes(base), path)
    elif "cp.resnet.conv1.weight" in tensors:
        with torch.device("meta"):
            expected = {key: tuple(value.shape) for key, value in BiSeNet().state_dict().items()}
        kind, problem = "BiSeNet face parser", _problem(tensors, expected, path)
    else:
        kind, problem = _guess(tensors), ""
    return _inspection(path, kind, tensors, base=base, problem=problem)


def _adapter_folder(folder: Path) -> Inspection:
    tensors = read_tensors(folder / WEIGHTS_NAME)
    try:
        adapter = IdentityAdapter.from_pretrained(folder)
    except WeightsNotFound as error:
        return _inspection(folder / WEIGHTS_NAME, "identity adapter", tensors, problem=str(error))
    kind = f"identity adapter for {adapter.config.base}, {adapter.config.mode} mode"
    return _inspection(folder / WEIGHTS_NAME, kind, tensors)


def _inspection(path: Path, kind: str, tensors: Tensors, *, base: Base | None = None, problem: str = "") -> Inspection:
    dtypes = Counter(str(value.dtype).removeprefix("torch.") for value in tensors.values())
    count = sum(value.numel() for value in tensors.values())
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Inspection(path, kind, base, len(tensors), count, dict(dtypes), sha256, problem)


def _problem(tensors: Tensors, expected: Mapping[str, tuple[int, ...]], path: Path) -> str:
    try:
        check_shapes(dict(tensors), dict(expected), source=str(path))
    except WeightsNotFound as error:
        return str(error)
    return ""


def _guess(tensors: Tensors) -> str:
    """Files that users confuse with ours, by a telling name."""
    names = tuple(tensors)
    if any(name.startswith("model.diffusion_model.") for name in names):
        wide = any(name.startswith("conditioner.embedders.1.") for name in names)
        return f"single-file Stable Diffusion {'XL' if wide else '1.x'}: a base model, not an identity adapter"
    if any(name.startswith("image_proj.") for name in names):
        return "IP-Adapter without FacialEncoder: it can start a training, but is no ConsistentID"
    if any("lora" in name for name in names):
        return "LoRA of a base model"
    if any(name.startswith("control_model.") for name in names):
        return "ControlNet"
    return UNKNOWN
