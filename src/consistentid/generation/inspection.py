"""What a file of weights is: its layout by names and shapes, without building a model from it."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from consistentid.errors import WeightsNotFound
from consistentid.faces.bisenet import BiSeNet
from consistentid.generation.base_layouts import LAYOUTS
from consistentid.generation.single_file import KINDS, check_networks, kind_of
from consistentid.identity.adapter import CONFIG_NAME, WEIGHTS_NAME, IdentityAdapter, check_shapes, split_state
from consistentid.identity.checkpoint import (
    Base,
    known_ip_adapter_shapes,
    official_base,
    official_shapes,
    read_tensors,
)
from consistentid.identity.config import AdapterConfig
from consistentid.identity.layout import ip_adapter_shapes

Tensors = Mapping[str, Tensor]
UNKNOWN = "unknown"
_BASE_MODELS = {
    "v1": "1.x", "v2": "2.x", "xl_base": "XL", "xl_refiner": "XL refiner", "inpainting": "1.x for inpainting",
    "inpainting_v2": "2.x for inpainting", "xl_inpaint": "XL for inpainting",
}  # fmt: skip


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
        compared: whose names and shapes were compared with the known layout, in words; empty: none were.
        problem: what does not fit the layout, empty when all does that was compared.
    """

    path: Path
    kind: str
    base: Base | None
    tensors: int
    parameters: int
    dtypes: dict[str, int]
    sha256: str
    compared: str = ""
    problem: str = ""

    @property
    def verdict(self) -> str:
        """One line: what is wrong, or how far the file is known to be whole."""
        if self.problem or self.kind == UNKNOWN:
            return self.problem or "nothing that is known here"
        return f"{self.compared} complete" if self.compared else "known by its names; its layout was not compared"

    @property
    def is_sound(self) -> bool:
        """Whether it is something known, without a problem."""
        return not self.problem and self.kind != UNKNOWN


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
        found = replace(_inspection(path, f"released ConsistentID for {name}", tensors), base=base)
        return _compared(found, tensors, official_shapes(base))
    if "cp.resnet.conv1.weight" in tensors:
        with torch.device("meta"):
            expected = {key: tuple(value.shape) for key, value in BiSeNet().state_dict().items()}
        return _compared(_inspection(path, "BiSeNet face parser", tensors), tensors, expected)
    kind = kind_of(tensors)
    return _inspection(path, _guess(tensors), tensors) if kind is None else _base_model(path, kind, tensors)


def _adapter_folder(folder: Path) -> Inspection:
    path = folder / WEIGHTS_NAME
    tensors = read_tensors(path)
    try:
        config = IdentityAdapter.from_pretrained(folder).config
    except WeightsNotFound as error:
        return replace(_inspection(path, "identity adapter", tensors), problem=str(error))
    found = _inspection(path, f"identity adapter for {config.base}, {config.mode} mode", tensors)
    expected = _ip_adapter_layout(config, folder.parent / "unet")
    if expected is None:
        return replace(found, compared="layout of projector and FacialEncoder")
    return _compared(found, split_state(dict(tensors))["ip_adapter"], expected)


def _ip_adapter_layout(config: AdapterConfig, unet: Path) -> dict[str, tuple[int, ...]] | None:
    """By the public layout of the base model, or by the U-Net that the adapter's folder lies beside."""
    known = known_ip_adapter_shapes(config)
    if known is not None or not (unet / CONFIG_NAME).is_file():
        return known
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        network = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(unet))
    return ip_adapter_shapes(network, config.lora_rank)


def _base_model(path: Path, kind: str, tensors: Tensors) -> Inspection:
    name = _BASE_MODELS.get(kind, f"of the kind {kind}")
    found = _inspection(path, f"single-file Stable Diffusion {name}: a base model, not an identity adapter", tensors)
    if kind not in KINDS:
        return found
    try:
        check_networks(tensors, LAYOUTS[KINDS[kind]], source=path)
    except WeightsNotFound as error:
        return replace(found, problem=str(error))
    except (KeyError, IndexError, ValueError) as error:
        return replace(found, problem=f"{path} is no whole model: missing {error}")
    return replace(found, compared="layout of U-Net and autoencoder")


def _inspection(path: Path, kind: str, tensors: Tensors) -> Inspection:
    dtypes = Counter(str(value.dtype).removeprefix("torch.") for value in tensors.values())
    count = sum(value.numel() for value in tensors.values())
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Inspection(path, kind, None, len(tensors), count, dict(dtypes), sha256)


def _compared(found: Inspection, tensors: Tensors, expected: Mapping[str, tuple[int, ...]]) -> Inspection:
    try:
        check_shapes(dict(tensors), dict(expected), source=str(found.path))
    except WeightsNotFound as error:
        return replace(found, compared="layout", problem=str(error))
    return replace(found, compared="layout")


def _guess(tensors: Tensors) -> str:
    """Files that users confuse with ours, by a telling name."""
    names = tuple(tensors)
    if any(name.startswith("image_proj.") for name in names):
        return "IP-Adapter without FacialEncoder: it can start a training, but is no ConsistentID"
    if any("lora" in name for name in names):
        return "LoRA of a base model"
    if any(name.startswith("control_model.") for name in names):
        return "ControlNet"
    if "vision_model.embeddings.patch_embedding.weight" in names:
        return _clip(tensors)
    words = {"emb_params", "clip_l", "clip_g"}
    if set(names) <= words or any(name.startswith("string_to_param.") for name in names) or _is_word(tensors):
        return "textual inversion: a word for the prompts of a base model"
    return UNKNOWN


def _clip(tensors: Tensors) -> str:
    """CLIP by its width: ViT-H/14 is what the released checkpoints use."""
    width = tensors["vision_model.embeddings.patch_embedding.weight"].shape[0]
    size = {768: "ViT-B", 1024: "ViT-L", 1280: "ViT-H", 1664: "ViT-bigG"}.get(width, f"{width} wide")
    return f"CLIP {size}: an image encoder"


def _is_word(tensors: Tensors) -> bool:
    """Diffusers' layout: the word is the only name."""
    return len(tensors) == 1 and all(name[:1] == "<" and value.ndim <= 2 for name, value in tensors.items())
