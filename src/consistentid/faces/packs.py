"""InsightFace model packs on the disk: where their networks really are, and which are missing."""

import os
from dataclasses import dataclass
from pathlib import Path

# A pack needs one network of each kind; both public packs are known by these names.
_DETECTORS = ("det_10g.onnx", "scrfd_10g_bnkps.onnx", "det_500m.onnx", "det_2.5g.onnx")
_RECOGNISERS = ("w600k_r50.onnx", "glintr100.onnx", "w600k_mbf.onnx")
# pack -> megabytes of its archive, licence of its weights
PUBLISHED = {
    "buffalo_l": (289, "non-commercial research only"),
    "antelopev2": (361, "non-commercial research only"),
}


def insightface_root() -> Path:
    """Where InsightFace's packs are kept: $INSIGHTFACE_ROOT, else ~/.insightface."""
    return Path(os.environ.get("INSIGHTFACE_ROOT") or "~/.insightface").expanduser()


@dataclass(frozen=True)
class Pack:
    """What was found of a model pack.

    Attributes:
        folder: where its networks are, or should be.
        name: of that folder below `models`, as InsightFace takes it.
        nested: whether the archive was unpacked into a folder of its own name inside the folder.
        missing: which kinds of network are not there.
    """

    folder: Path
    name: str
    nested: bool
    missing: tuple[str, ...]


def find_pack(root: Path, pack: str) -> Pack:
    """Look for a pack below `root`/models, also one folder deeper, where antelopev2.zip unpacks itself."""
    folder, name = root / "models" / pack, pack
    nested = not any(folder.glob("*.onnx")) and any((folder / pack).glob("*.onnx"))
    if nested:
        folder, name = folder / pack, f"{pack}/{pack}"
    there = {path.name for path in folder.glob("*.onnx")}
    kinds = {"detection": _DETECTORS, "recognition": _RECOGNISERS}
    missing = tuple(kind for kind, names in kinds.items() if not there.intersection(names))
    return Pack(folder, name, nested, missing)
