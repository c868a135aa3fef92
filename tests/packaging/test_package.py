"""What the wheel and the source archive hold, without building them; `make package` builds and installs them."""

import re
import sys
import tomllib
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hatchling.builders.plugin.interface import BuilderInterface
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

from consistentid.cli import app, evaluate


@pytest.fixture(scope="module")
def project(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel(root: Path) -> dict[str, Path]:
    return _files(WheelBuilder(str(root)))


@pytest.fixture(scope="module")
def sdist(root: Path) -> dict[str, Path]:
    return _files(SdistBuilder(str(root)))


def _files(builder: BuilderInterface) -> dict[str, Path]:
    """Names in the archive, and where they come from."""
    return {PurePosixPath(one.distribution_path).as_posix(): Path(one.path) for one in builder.recurse_included_files()}


def _distributions(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w-]", each)[0].lower() for each in requirements}


def test_the_wheel_holds_the_package_and_nothing_else(root: Path, wheel: dict[str, Path]) -> None:
    package = root / "src" / "consistentid"
    there = {path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert set(wheel.values()) == there
    assert {name.split("/")[0] for name in wheel} == {"consistentid"}


def test_the_wheel_holds_what_a_user_needs(wheel: dict[str, Path]) -> None:
    weights = {name for name in wheel if name.endswith(".safetensors")}
    folders = {PurePosixPath(name).parent.name for name in weights}
    assert folders == {"adapter", "parser", "text_encoder", "unet", "vae"}
    assert "consistentid/py.typed" in wheel
    assert "consistentid/embedded/MODEL_CARD.md" in wheel  # the licences and credits of its photos
    assert "consistentid/generation/clip_merges.LICENSE.txt" in wheel


def test_the_wheel_has_no_picture_no_pickle_and_no_test(wheel: dict[str, Path]) -> None:
    unwanted = {".jpg", ".jpeg", ".png", ".webp", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".npz", ".parquet"}
    found = [name for name in wheel if PurePosixPath(name).suffix.lower() in unwanted or "/test" in name]
    assert not [name for name in found if "/web/ui/presets/" not in name], "but presets, drawn by the embedded model"


def test_the_wheel_is_small(wheel: dict[str, Path]) -> None:
    assert sum(path.stat().st_size for path in wheel.values()) < 60e6  # unpacked; PyPI takes 100 MB


def test_the_sdist_builds_the_same_wheel(wheel: dict[str, Path], sdist: dict[str, Path]) -> None:
    assert not set(wheel.values()) - set(sdist.values())


def test_the_sdist_runs_its_own_tests(root: Path, sdist: dict[str, Path]) -> None:
    needed = [path for folder in ("tests", "scripts", "configs") for path in (root / folder).rglob("*.*")]
    needed += [root / name for name in ("Makefile", "constraints.txt", "zensical.toml", "Dockerfile")]
    missing = {path for path in needed if "__pycache__" not in path.parts} - set(sdist.values())
    assert not missing


def test_the_image_has_the_pinned_torch(root: Path) -> None:
    pinned = re.search(r"^torch==\S+$", (root / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned
    assert f" {pinned.group()}+cpu\n" in (root / "Dockerfile").read_text()


def test_licences_are_named(root: Path, project: dict[str, Any]) -> None:
    assert project["license"] == "MIT"
    assert all((root / name).is_file() for name in project["license-files"])


def test_the_console_script_is_the_command(project: dict[str, Any]) -> None:
    assert project["scripts"] == {"consistentid": f"{app.__name__}:{app.main.__name__}"}


def test_an_extra_brings_what_its_verb_asks_for(project: dict[str, Any]) -> None:
    brought = _distributions([*project["dependencies"], *project["optional-dependencies"]["eval"]])
    assert set(evaluate._NEEDED.values()) <= brought


@pytest.mark.parametrize(
    ("verb", "library", "extra"),
    [
        ("train configs/embedded.yaml", "yaml", "data,train"),
        ("train configs/sd15.yaml", "pyarrow", "data,train"),
        ("dataset build photos data", "pyarrow", "data"),
        ("evaluate configs/evaluate.yaml", "torchmetrics", "eval"),
    ],
)
def test_a_missing_extra_is_named(
    verb: str,
    library: str,
    extra: str,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(root)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(SystemExit) as stopped:
        app.main(verb.split())
    said = capsys.readouterr().err
    assert stopped.value.code == 1
    assert f"consistentid[{extra}]" in said
    assert said.count("\n") == 1
