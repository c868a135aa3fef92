"""A real ComfyUI, and tiny random base models in its classes and in diffusers'."""

import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from consistentid.faces.analysis import FaceAnalysis
from consistentid.generation.generator import PortraitGenerator

ROOT = Path(__file__).parents[2]
WIDTH = 64  # of a text encoder


def _module(name: str, path: Path, **options: Any) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path, **options)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def home() -> Path:
    """ComfyUI's folder; tests that need it are skipped without one."""
    named = os.environ.get("COMFYUI_HOME")
    if not named:
        pytest.skip("COMFYUI_HOME names no checkout of ComfyUI")
    if not (Path(named) / "comfy").is_dir():
        pytest.skip(f"COMFYUI_HOME={named} is no checkout of ComfyUI")
    return Path(named)


@pytest.fixture(scope="session")
def nodes(home: Path, tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """Our nodes, loaded by their folder's path as ComfyUI does it."""
    sys.path.insert(0, str(home))
    try:
        from comfy.cli_args import args

        args.cpu = True  # before ComfyUI looks for a device
        import comfy.sd  # noqa: F401
        import folder_paths
    except ImportError as error:
        pytest.skip(f"this Python cannot import ComfyUI ({error}); run the tests with the one that runs ComfyUI")
    folder_paths.models_dir = str(tmp_path_factory.mktemp("models"))
    folder = ROOT / "comfyui"
    loaded = _module("consistentid_nodes", folder / "__init__.py", submodule_search_locations=[str(folder)])
    _module("comfy_twins", Path(__file__).with_name("models.py"))
    torch.set_num_threads(1)
    return loaded


@dataclass(frozen=True, eq=False)
class Twins:
    """One tiny base model twice, with one adapter.

    Attributes:
        generator: ours, on diffusers.
        model, clip: ComfyUI's.
        loaded: the adapter as our nodes hand it on.
    """

    generator: PortraitGenerator
    model: Any
    clip: Any
    loaded: Any


@pytest.fixture(scope="session")
def drawn() -> Callable[[int], FaceAnalysis]:
    """Faces of ellipses, by seed."""
    _module("tiny", ROOT / "tests" / "generation" / "tiny.py")
    face: Callable[[int], FaceAnalysis] = _module(
        "generation_conftest", ROOT / "tests" / "generation" / "conftest.py"
    ).drawn_face
    return face


@pytest.fixture(scope="session")
def twins(nodes: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Twins]:
    """Twins of a base, made once."""
    import comfy_twins as models

    made: dict[str, Twins] = {}

    def of(base: str) -> Twins:
        if base not in made:
            with torch.inference_mode(mode=False):  # some tests run in it; the weights are for all
                made[base] = Twins(*models.twins(base, folder=tmp_path_factory.mktemp(base)))
        return made[base]

    return of
