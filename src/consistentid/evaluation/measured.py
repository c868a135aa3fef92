"""What was measured on one picture, and the file that keeps it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float

from consistentid.faces.attributes import FaceAttributes
from consistentid.generation.portrait import write_bytes

_GROUPS = ("identity", "regions", "squares", "images")
_WORDS = ("hair", "expression", "background")
_NUMBERS = ("hair_lab", "smile", "mouth_open", "background_lab")


@dataclass(frozen=True, eq=False)
class Measured:
    """One picture.

    Attributes:
        failure: why nothing was measured (no face, unreadable), None when something was.
        faces: how many faces were found.
        identity: embedding by recogniser; one that saw no face is missing.
        regions: embedding by region (see `fgis`); regions that are not visible are missing.
        squares: the same of the squares around regions, see `fgis.region_squares`.
        images: embedding of the whole picture by embedder.
        face: features of the aligned face, for distances between sets of pictures.
        pose: roll, yaw and pitch (see `copying.head_pose`).
        attributes: hair, expression, background.
    """

    failure: str | None = None
    faces: int = 0
    identity: Mapping[str, Float[np.ndarray, " d"]] = field(default_factory=dict)
    regions: Mapping[str, Float[np.ndarray, " d"]] = field(default_factory=dict)
    squares: Mapping[str, Float[np.ndarray, " d"]] = field(default_factory=dict)
    images: Mapping[str, Float[np.ndarray, " d"]] = field(default_factory=dict)
    face: Float[np.ndarray, " d"] | None = None
    pose: Float[np.ndarray, "3"] | None = None
    attributes: FaceAttributes | None = None


def save_measured(measured: Measured, path: Path) -> None:
    """Write a safetensors file that appears complete or not at all."""
    from safetensors.numpy import save

    arrays = {
        f"{group}/{name}": np.ascontiguousarray(value)
        for group in _GROUPS
        for name, value in getattr(measured, group).items()
    }
    arrays |= {name: value for name in ("face", "pose") if (value := getattr(measured, name)) is not None}
    words: dict[str, object] = {"failure": measured.failure, "faces": measured.faces}
    if measured.attributes is not None:
        words |= {name: getattr(measured.attributes, name) for name in _WORDS}
        arrays |= {f"attributes/{name}": np.asarray(getattr(measured.attributes, name)) for name in _NUMBERS}
    write_bytes(path, save(arrays, metadata={"measured": json.dumps(words)}))


def load_measured(path: Path) -> Measured | None:
    """Read what `save_measured` wrote; None when the file is not there."""
    from safetensors import safe_open

    if not path.is_file():
        return None
    with safe_open(path, framework="np") as file:
        words = json.loads(file.metadata()["measured"])
        arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  it is no mapping
    groups: dict[str, dict[str, np.ndarray]] = {name: {} for name in (*_GROUPS, "attributes")}
    for key, value in arrays.items():
        group, slash, name = key.partition("/")
        if slash:
            groups[group][name] = value
    attributes = None
    if numbers := groups.pop("attributes"):
        scalars = {name: value if value.ndim else float(value) for name, value in numbers.items()}
        attributes = FaceAttributes(**{name: words[name] for name in _WORDS}, **scalars)  # type: ignore[arg-type]
    return Measured(
        words["failure"], words["faces"], **groups, face=arrays.get("face"), pose=arrays.get("pose"),
        attributes=attributes,
    )  # fmt: skip
