"""What users of the released weights stumble over, found and explained by `consistentid doctor`."""

import os
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from consistentid.cli.findings import Finding

_COMPILERS = ("c++", "g++", "clang++", "cl")
_PACKS = ("buffalo_l", "antelopev2")


def released_weights(adapter: Path | None = None) -> Iterator[Finding]:
    """Everything that official mode needs besides a base model; none of it is needed by the embedded model.

    Args:
        adapter: an identity adapter that may have a face parser beside it.
    """
    from consistentid.faces.packs import insightface_root

    yield from insightface_packs(insightface_root())
    yield _recogniser_runtime()
    yield compiler()
    yield face_parser(adapter)
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
    if missing == ["insightface"] and find_spec("uniface") is not None:
        return Finding("InsightFace runtime", "uniface and onnxruntime, which are used instead of insightface")
    advice = "only for the released checkpoints: pip install 'consistentid[faces]'; UniFace needs onnxruntime alone"
    return Finding("InsightFace runtime", f"without {' and '.join(missing)}", advice, needed=False)


def compiler() -> Finding:
    """Whether insightface could be built where pip finds no wheel of it, as for versions before 2."""
    if find_spec("insightface") is not None:
        return Finding("compiler", "not needed: insightface is installed")
    found = next((path for name in _COMPILERS if (path := shutil.which(name))), None)
    if found:
        return Finding("compiler", f"{found}; pip needs one where it finds no wheel of insightface")
    advice = (
        "only for the released checkpoints: where pip wants to compile insightface, `pip install onnxruntime uniface` "
        "does without, and is used instead"
    )
    return Finding("compiler", "none, and no insightface", advice, needed=False)


def face_parser(adapter: Path | None) -> Finding:
    """`face_parsing.pth`, where generation looks for it: beside the adapter, then in the hub's cache."""
    from consistentid.generation.sources import parser_weights

    folder = adapter.parent if adapter is not None and adapter.is_file() else adapter
    found = parser_weights(folder or Path("no adapter"))
    if found is not None:
        return Finding("face parser", str(found))
    where = "not in the hub's cache" + ("" if folder is None else f", nor in {folder}")
    advice = "only for the released checkpoints: `consistentid weights fetch sd15`"
    if folder is None:
        advice += "; one beside an adapter is seen with `consistentid doctor --adapter PATH`"
    return Finding("face parser", where, advice, needed=False)


def photos() -> Iterator[Finding]:
    """What a photo can hold that no look at the machine tells."""
    from consistentid.faces.analysis import MIN_FACE, ORDERS

    yield Finding(
        "several faces", f"the largest is taken; --face {', '.join(ORDERS)} or left:1 (the second) takes another"
    )
    yield Finding(
        "small faces",
        f"large photos are searched tile by tile; a face below {MIN_FACE} px is refused, give a closer photo",
    )


def _fetched() -> Iterator[Finding]:
    from consistentid.generation.sources import SOURCES, cached

    seen = set()
    for preset, sources in SOURCES.items():
        for source in sources:
            if source in seen or source.part in {"face parser", "face recogniser"}:  # they have lines of their own
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
