"""What users of the released weights stumble over, found and explained by `consistentid doctor`."""

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from consistentid.cli.findings import Finding

_PACKS = ("buffalo_l", "antelopev2")


def released_weights() -> Iterator[Finding]:
    """Everything that official mode needs besides a base model; none of it is needed by the embedded model."""
    yield from insightface_packs(Path(os.environ.get("INSIGHTFACE_ROOT", "~/.insightface")).expanduser())
    yield _recogniser_runtime()
    yield from _fetched()
    yield _offline()
    yield Finding(
        "channel order", "RGB for the SD 1.5 release, BGR for SDXL; from the adapter's configuration, nothing to set"
    )


def insightface_packs(root: Path) -> Iterator[Finding]:
    """Packs of InsightFace: there, unpacked one folder too deep, or without a network."""
    from consistentid.faces.packs import find_pack

    for name in _PACKS:
        pack = find_pack(root, name)
        there = any(pack.folder.glob("*.onnx"))
        found, advice = str(pack.folder), ""
        if not there:
            found = f"not in {pack.folder}"
            if name == "buffalo_l":
                advice = "only for the released checkpoints: unpack InsightFace's buffalo_l.zip there"
        elif pack.missing:
            advice = f"no network for {' and '.join(pack.missing)}: unpack {name}.zip again"
        elif pack.nested:
            found += " (one folder deeper than InsightFace looks; it is used where it is)"
        yield Finding(f"InsightFace {name}", found, advice, needed=False)


def _recogniser_runtime() -> Finding:
    """InsightFace's networks run on onnxruntime."""
    missing = [name for name in ("insightface", "onnxruntime") if find_spec(name) is None]
    if not missing:
        return Finding("InsightFace runtime", "insightface and onnxruntime")
    advice = "only for the released checkpoints: pip install 'consistentid[faces]'; UniFace needs onnxruntime alone"
    return Finding("InsightFace runtime", f"without {' and '.join(missing)}", advice, needed=False)


def _fetched() -> Iterator[Finding]:
    from consistentid.generation.sources import SOURCES, cached

    seen = set()
    for preset, sources in SOURCES.items():
        for source in sources:
            if source in seen:
                continue
            seen.add(source)
            folder = cached(source)
            both = sum(source in others for others in SOURCES.values()) > 1
            name = source.part if both else f"{source.part}, {preset}"
            advice = "" if folder else f"only for the released checkpoints: `consistentid weights fetch {preset}`"
            yield Finding(name, str(folder or "not in the hub's cache"), advice, needed=False)


def _offline() -> Finding:
    """Whether the hub's libraries were told to stay offline, which looks like missing files."""
    names = [name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if os.environ.get(name, "0") not in {"", "0"}]
    if not names:
        return Finding("downloads", "allowed when a hub id is named; --offline forbids them")
    return Finding("downloads", f"forbidden by {' and '.join(names)}: what is not in the hub's cache counts as missing")


def half_precision(device: str) -> Finding:
    """Where float16 turns pictures black."""
    if device == "cuda":
        return Finding("float16", "the U-Net runs in it, the autoencoder stays in float32; black pictures are refused")
    return Finding("float16", f"not used on {device}; auto takes bfloat16 where it is fast, else float32")
