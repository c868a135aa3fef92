from pathlib import Path

import pytest

from consistentid.generation.origin import absolute, absolute_loras


def test_paths_hold_from_any_folder_and_names_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.safetensors").touch()
    here = str(tmp_path / "a.safetensors")
    assert absolute_loras(["a.safetensors", "a.safetensors:0.5", "owner/name/b.safetensors:2"]) == (
        here,
        f"{here}:0.5",
        "owner/name/b.safetensors:2",
    )
    assert [absolute(each) for each in (None, "a.safetensors", "owner/name")] == [None, here, "owner/name"]
