"""Released checkpoints <-> our folders of safetensors."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from consistentid.errors import WeightsNotFound
from consistentid.identity.adapter import IdentityAdapter, check_shapes
from consistentid.identity.config import AdapterConfig
from consistentid.identity.facial_encoder import FacialEncoder
from consistentid.identity.layout import State, projector_shapes
from consistentid.weight_files import read_weights

Base = Literal["sd15", "sdxl"]
_PARTS: dict[Base, dict[str, str]] = {  # the release's name of a part -> ours
    "sd15": {"image_proj": "image_proj", "FacialEncoder": "facial_encoder", "adapter_modules": "ip_adapter"},
    "sdxl": {"image_proj_model": "image_proj", "FacialEncoder": "facial_encoder", "adapter_modules": "ip_adapter"},
}


def read_official(path: str | Path, *, base: Base, dtype: torch.dtype | None = torch.float32) -> IdentityAdapter:
    """Read `ConsistentID-v1.bin`, `ConsistentID_SDXL-v1.bin` or the same as safetensors.

    Args:
        path: a pickle (read with `weights_only=True`) or a safetensors file whose keys are `part.key`.
        base: which of the two layouts.
        dtype: of the weights in memory; None keeps the file's.

    Raises:
        WeightsNotFound: the file is missing, is no checkpoint, or its tensors are not the layout's; the message lists
            what is missing, unknown or of another shape.
    """
    path = Path(path)
    parts = _named_parts(read_weights(path), base=base, source=str(path))
    config = AdapterConfig.preset(base)
    check_shapes(parts["ip_adapter"], official_ip_adapter_shapes(base), source=f"{path} (adapter_modules)")
    state = {
        f"{part}.{key}": value.to(dtype or value.dtype)
        for part, tensors in parts.items()
        for key, value in tensors.items()
    }
    return IdentityAdapter.from_state(config, state, source=str(path))


def load_adapter(path: str | Path) -> IdentityAdapter:
    """An adapter from our folder or from a released file, whose base is told by the names of its parts.

    Raises:
        WeightsNotFound: see `IdentityAdapter.from_pretrained` and `read_official`.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        return IdentityAdapter.from_pretrained(path)
    base = official_base(read_tensors(path))
    if base is None:
        raise WeightsNotFound(f"{path} is no released checkpoint; `consistentid weights verify` says what it is")
    return read_official(path, base=base)


def official_base(tensors: Iterable[str]) -> Base | None:
    """Which release flat `part.key` names belong to: they spell the projector differently. None for neither."""
    parts = {key.partition(".")[0] for key in tensors}
    if not {"FacialEncoder", "adapter_modules"} & parts:  # one of them may be what is missing
        return None
    return "sdxl" if "image_proj_model" in parts else "sd15"


def official_state(adapter: IdentityAdapter) -> dict[str, State]:
    """The adapter's weights with the part names of the released checkpoint, as the released code reads them.

    Raises:
        WeightsNotFound: the adapter is not of a released layout.
    """
    base = adapter.config.base
    if base == "embedded":
        raise WeightsNotFound("the embedded model has no released layout; save it with save_pretrained")
    ours = {ours: theirs for theirs, ours in _PARTS[base].items()}
    parts: dict[str, State] = {theirs: {} for theirs in _PARTS[base]}
    for key, value in adapter.state().items():
        part, _, rest = key.partition(".")
        parts[ours[part]][rest] = value
    return parts


def write_official(adapter: IdentityAdapter, path: str | Path) -> None:
    """Write the adapter as safetensors with the keys of the released checkpoint (`part.key`), atomically."""
    from safetensors.torch import save_file

    path = Path(path)
    flat = {
        f"{part}.{key}": value.contiguous().cpu()
        for part, tensors in official_state(adapter).items()
        for key, value in tensors.items()
    }
    temporary = path.with_name(f".{path.name}.part")
    save_file(flat, temporary, metadata={"format": "pt"})
    temporary.replace(path)


def read_tensors(path: str | Path) -> State:
    """All tensors of a `.safetensors` file or a pickle of tensors under flat `part.key` names, mapped from the disk.

    Raises:
        WeightsNotFound: the file is missing, damaged, or holds something else than tensors.
    """
    flat: State = {}
    for key, value in read_weights(Path(path)).items():
        nested = value.items() if isinstance(value, Mapping) else [("", value)]
        flat |= {f"{key}.{inner}".rstrip("."): tensor for inner, tensor in nested if isinstance(tensor, Tensor)}
    if not flat:
        raise WeightsNotFound(f"{path} holds no tensors; give a checkpoint")
    return flat


def known_ip_adapter_shapes(config: AdapterConfig) -> dict[str, tuple[int, ...]] | None:
    """Keys and shapes of an adapter's `ip_adapter` part, where its base model has one public layout; else None."""
    return None if config.base == "embedded" else official_ip_adapter_shapes(config.base, config.lora_rank)


def official_shapes(base: Base) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of a whole released checkpoint, flat."""
    config = AdapterConfig.preset(base)
    with torch.device("meta"):
        encoder = FacialEncoder.from_adapter_config(config).state_dict()
    parts: dict[str, dict[str, tuple[int, ...]]] = {
        "image_proj": projector_shapes(config),
        "facial_encoder": {key: tuple(value.shape) for key, value in encoder.items()},
        "ip_adapter": official_ip_adapter_shapes(base),
    }
    return {f"{theirs}.{key}": shape for theirs, ours in _PARTS[base].items() for key, shape in parts[ours].items()}


def official_ip_adapter_shapes(base: Base, rank: int | None = None) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of `adapter_modules` for a base model, from its public layout; None: the released rank."""
    config = AdapterConfig.preset(base)
    rank = rank or config.lora_rank
    shapes: dict[str, tuple[int, ...]] = {}
    for index, (width, context) in enumerate(_attention_sizes(base, config.text_dim)):
        for name in ("to_q", "to_k", "to_v", "to_out"):
            source = context if context and name in {"to_k", "to_v"} else width
            shapes[f"{index}.{name}_lora.down.weight"] = (rank, source)
            shapes[f"{index}.{name}_lora.up.weight"] = (width, rank)
        if context:
            shapes |= {f"{index}.{name}.weight": (width, context) for name in ("to_k_ip", "to_v_ip")}
    return shapes


# Width of each transformer and its number of blocks, in the order down, up, mid of the base model's U-Net.
_TRANSFORMERS: dict[Base, list[tuple[int, int]]] = {
    "sd15": [(320, 1)] * 2 + [(640, 1)] * 2 + [(1280, 1)] * 2 + [(1280, 1)] * 3 + [(640, 1)] * 3 + [(320, 1)] * 3
    + [(1280, 1)],
    "sdxl": [(640, 2)] * 2 + [(1280, 10)] * 2 + [(1280, 10)] * 3 + [(640, 2)] * 3 + [(1280, 10)],
}  # fmt: skip


def _attention_sizes(base: Base, text_dim: int) -> list[tuple[int, int | None]]:
    """Width and context width of each attention layer; None for self-attention."""
    return [
        (width, context) for width, blocks in _TRANSFORMERS[base] for _ in range(blocks) for context in (None, text_dim)
    ]


def _named_parts(loaded: Mapping[str, object], *, base: Base, source: str) -> dict[str, State]:
    """Parts under our names, from nested dicts or from flat `part.key` names."""
    names = _PARTS[base]
    parts: dict[str, State] = {ours: {} for ours in names.values()}
    unknown = []
    for key, value in loaded.items():
        part, _, rest = str(key).partition(".")
        if part in names and isinstance(value, Mapping):
            tensors = {str(inner).removeprefix("module."): each for inner, each in value.items()}
            unknown += [f"{key}.{inner}" for inner, each in tensors.items() if not isinstance(each, Tensor)]
            parts[names[part]] |= tensors
        elif part in names and isinstance(value, Tensor) and rest:
            parts[names[part]][rest] = value
        else:
            unknown.append(key)
    missing = [theirs for theirs, ours in names.items() if not parts[ours]]
    if unknown or missing:
        raise WeightsNotFound(
            f"{source} is no released {base} checkpoint: missing {', '.join(missing) or 'nothing'}; "
            f"unknown {', '.join(map(repr, sorted(unknown)[:5])) or 'nothing'}"
        )
    return parts
