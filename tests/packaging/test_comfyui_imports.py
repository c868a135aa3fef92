"""The nodes run inside ComfyUI only; what they import of the package is checked without it."""

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("path", sorted((ROOT / "comfyui").glob("*.py")), ids=lambda path: path.stem)
def test_what_the_nodes_import_is_there(path: Path) -> None:
    wanted = [
        (node.module, name.name)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("consistentid")
        for name in node.names
    ]
    missing = [(module, name) for module, name in wanted if not hasattr(importlib.import_module(module), name)]
    assert not missing
