"""Base models as diffusers folders, on this machine or on the hub: in half precision where nothing else is there."""

from pathlib import Path
from typing import Any

from consistentid.errors import WeightsNotFound, first_line
from consistentid.generation.single_file import tensor_shapes
from consistentid.generation.sources import snapshot

_HALF = "fp16"


def load_base_folder(source: str | Path, *, offline: bool, **options: Any) -> Any:
    """A stock pipeline from a folder or a hub id; what was fetched in half precision is not downloaded again.

    Args:
        source: a folder or a hub id.
        offline: take it from the hub's cache only.
        **options: further arguments of diffusers' `from_pretrained`.

    Raises:
        WeightsNotFound: there is no pipeline, a file is damaged, or its U-Net lacks weights.
    """
    from diffusers import DiffusionPipeline
    from safetensors import SafetensorError

    folder = _folder(source)
    variant = None if folder is None else _variant(folder)
    place = folder if variant and offline else source  # by its id, the hub's libraries ask for all that it lists
    try:
        pipeline = DiffusionPipeline.from_pretrained(place, local_files_only=offline, variant=variant, **options)
    except (OSError, ValueError, SafetensorError) as error:
        raise WeightsNotFound(
            f"no Stable Diffusion pipeline at {source} ({first_line(error)}); give a folder or a hub id"
        ) from error
    folder = _folder(source)  # a download may have made it
    if folder is not None:
        _check_unet(pipeline.unet, folder, source=source)
    return pipeline


def _folder(source: str | Path) -> Path | None:
    return Path(source) if Path(source).is_dir() else snapshot(str(source))


def _variant(folder: Path) -> str | None:
    """Half precision, when the U-Net is there in no other."""
    weights = [path for path in (folder / "unet").glob("*") if path.suffix in {".safetensors", ".bin"}]
    return _HALF if weights and all(_is_half(path) for path in weights) else None


def _is_half(path: Path) -> bool:
    return f".{_HALF}" in path.name


def _check_unet(unet: Any, folder: Path, *, source: str | Path) -> None:
    """Refuse a U-Net whose files lack weights: diffusers draws them at random, with no more than a warning."""
    half = _variant(folder) is not None
    files = [path for path in (folder / "unet").glob("*.safetensors") if _is_half(path) == half]
    stored = {key for path in files for key in tensor_shapes(path)}
    missing = [name for name, _ in unet.named_parameters() if name not in stored]
    if stored and missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise WeightsNotFound(f"the U-Net of {source} lacks {', '.join(missing[:5])}{more}; download it again")
