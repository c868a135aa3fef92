"""Base models as one `.safetensors` file, as they are shared outside the hub; nothing is downloaded."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from consistentid.errors import WeightsNotFound, first_line
from consistentid.generation.base_layouts import LAYOUTS, BaseLayout, write_layout
from consistentid.identity.adapter import check_shapes

KINDS: dict[str, BaseLayout] = {"v1": "sd15", "xl_base": "sdxl"}  # diffusers' names of the file layouts
_TEXT_ENCODERS = {"conditioner.embedders.1.": "xl_base", "cond_stage_model.model.": "v2"}  # which no v1 has
_DENOISER = "model.diffusion_model."


def is_single_file(source: str | Path) -> bool:
    """Whether a base model is named by a file, not by a folder or a hub id."""
    return Path(source).suffix.lower() in {".safetensors", ".ckpt"} or Path(source).is_file()


def load_single_file(path: str | Path, *, config: str | Path | None = None) -> Any:
    """A stock pipeline from one file.

    Args:
        path: a `.safetensors` file in the original layout of SD 1.x or SDXL.
        config: a diffusers folder of the same model, whose weights are not needed; None for the plain SD 1.5 or SDXL,
            whichever the file is.

    Raises:
        WeightsNotFound: the file is missing, damaged, of another model, or lacks tensors; the message names them.
    """
    import diffusers

    path = Path(path).expanduser()
    tensors = tensor_shapes(path)
    base = base_of(tensors, source=path)
    pipeline_class = getattr(diffusers, LAYOUTS[base]["model_index"]["_class_name"])
    with _folder(base, config) as folder:
        try:
            check_networks(tensors, {part: _config(folder / part) for part in ("unet", "vae")}, source=path)
            pipeline = pipeline_class.from_single_file(str(path), config=str(folder), local_files_only=True)
        except KeyError as error:
            raise WeightsNotFound(f"{path} is no whole {base} model: missing {error.args[0]}") from error
        except (OSError, RuntimeError, ValueError, NotImplementedError) as error:
            raise WeightsNotFound(f"{path} cannot be loaded as a {base} model ({first_line(error)})") from error
    _check_text_encoders(pipeline, source=path)
    return pipeline


def tensor_shapes(path: Path) -> dict[str, Tensor]:
    """Names of the tensors of a safetensors file with their shapes, on the meta device.

    Raises:
        WeightsNotFound: the file is missing, a pickle, or damaged.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise WeightsNotFound(f"{path} does not exist; give a .safetensors file, a folder or a hub id")
    if path.suffix.lower() != ".safetensors":
        raise WeightsNotFound(f"{path} is a pickle, which may run code; convert it to .safetensors first")
    try:
        with safe_open(path, framework="pt") as file:
            return {key: torch.empty(file.get_slice(key).get_shape(), device="meta") for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise WeightsNotFound(f"{path} is no safetensors file, or is incomplete; download it again") from error


def base_of(tensors: dict[str, Tensor], *, source: Path) -> BaseLayout:
    """Which base model a file holds.

    Raises:
        WeightsNotFound: it is no base model, or one that the adapters were not made for.
    """
    kind = kind_of(tensors)
    if kind is None:
        raise WeightsNotFound(f"{source} holds no base model; `consistentid weights verify` says what it is")
    if kind not in KINDS:
        raise WeightsNotFound(f"{source} is of the kind {kind!r}; base models of SD 1.x and SDXL can be used")
    return KINDS[kind]


def kind_of(tensors: Mapping[str, Tensor]) -> str | None:
    """Diffusers' name of a base model's layout, such as `v1`; None when there is no denoiser."""
    from diffusers.loaders.single_file_utils import infer_diffusers_model_type

    if not any(key.startswith(_DENOISER) for key in tensors):
        return None
    kind = str(infer_diffusers_model_type(tensors))
    if kind != "v1":
        return kind
    told = (other for prefix, other in _TEXT_ENCODERS.items() if any(key.startswith(prefix) for key in tensors))
    return next(told, kind)  # v1 is also what diffusers calls a file that lacks the tensors it goes by


@contextmanager
def _folder(base: BaseLayout, config: str | Path | None) -> Iterator[Path]:
    if config is not None:
        folder = Path(config).expanduser()
        if not (folder / "model_index.json").is_file():
            raise WeightsNotFound(f"{folder} has no model_index.json; give the folder of a diffusers model")
        yield folder
        return
    with tempfile.TemporaryDirectory() as made:
        write_layout(Path(made), LAYOUTS[base])
        yield Path(made)


def _config(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return found


def check_networks(tensors: Mapping[str, Tensor], configs: Mapping[str, Mapping[str, Any]], *, source: Path) -> None:
    """Compare U-Net and autoencoder of a file with configurations such as those of `LAYOUTS`, by shapes alone.

    Raises:
        WeightsNotFound: lists what is missing, unknown or of another shape.
        KeyError: a tensor is missing from which diffusers tells the layout.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint

    for part, network_class, convert in (
        ("unet", UNet2DConditionModel, convert_ldm_unet_checkpoint),
        ("vae", AutoencoderKL, convert_ldm_vae_checkpoint),
    ):
        config = dict(configs[part])
        with torch.device("meta"):
            expected = network_class.from_config(config).state_dict()
        found = convert(dict(tensors), config=config)
        check_shapes(found, {key: tuple(value.shape) for key, value in expected.items()}, source=f"{source} ({part})")


def _check_text_encoders(pipeline: Any, *, source: Path) -> None:
    """Tensors that the file lacks were left without values."""
    encoders = {name: part for name, part in pipeline.components.items() if name.startswith("text_encoder") and part}
    missing = [f"{name}.{key}" for name, part in encoders.items() for key, p in part.named_parameters() if p.is_meta]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise WeightsNotFound(f"{source} is incomplete: missing {', '.join(missing[:5])}{more}; download it again")
