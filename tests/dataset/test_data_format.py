"""docs/data-format.md is what the code says, and says something of every field."""

import importlib.util
from pathlib import Path

import pytest
from pydantic import BaseModel

from consistentid.dataset.manifest import Counts, Manifest, ShardFile
from consistentid.dataset.quality import Rules
from consistentid.dataset.record import FGIDRecord, Quality
from consistentid.dataset.statistics import Spread, Statistics


def test_the_page_is_made_from_the_code(root: Path) -> None:
    spec = importlib.util.spec_from_file_location("data_format", root / "scripts" / "data_format.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.PAGE.read_text(encoding="utf-8") == script.page(), "run python scripts/data_format.py"


@pytest.mark.parametrize("model", [FGIDRecord, Quality, Manifest, ShardFile, Counts, Statistics, Spread, Rules])
def test_every_field_is_described(model: type[BaseModel]) -> None:
    assert [name for name, field in model.model_fields.items() if not field.description] == []
