"""Adapters by hub id: what is asked of the hub, and when it is not asked at all."""

from pathlib import Path

import pytest

from consistentid.errors import WeightsNotFound
from consistentid.generation.sources import hub_path


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, tuple[str, ...], bool]]:
    """Every request to the hub, which has one repository with both layouts."""
    asked: list[tuple[str, tuple[str, ...], bool]] = []
    for name in ("config.json", "adapter.safetensors", "ConsistentID-v1.bin"):
        (tmp_path / name).touch()

    def snapshot_download(repository: str, *, allow_patterns: list[str], local_files_only: bool) -> str:
        from huggingface_hub.errors import LocalEntryNotFoundError

        asked.append((repository, tuple(allow_patterns), local_files_only))
        if repository != "owner/name":
            raise LocalEntryNotFoundError(f"no {repository}")
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    return asked


@pytest.mark.parametrize("offline", [True, False])
def test_a_hub_id_names_a_folder_or_a_file(hub: list, tmp_path: Path, offline: bool) -> None:
    assert hub_path("owner/name", offline=offline) == tmp_path
    assert hub_path("owner/name/ConsistentID-v1.bin", offline=offline) == tmp_path / "ConsistentID-v1.bin"
    assert hub == [
        ("owner/name", ("config.json", "adapter.safetensors"), offline),
        ("owner/name", ("ConsistentID-v1.bin",), offline),
    ]


def test_what_the_hub_lacks_is_named(hub: list) -> None:
    with pytest.raises(WeightsNotFound, match=r"lacks other.bin"):
        hub_path("owner/name/other.bin", offline=True)
    with pytest.raises(WeightsNotFound, match=r"identity adapter from owner/nothing: .*--offline"):
        hub_path("owner/nothing", offline=True)


@pytest.mark.parametrize("name", ["adapter", "./a/b", "../a/b", "/a/b", "~/a/b", "weights/ConsistentID-v1.bin"])
def test_local_names_never_reach_the_hub(hub: list, name: str) -> None:
    hub_path(name, offline=False)
    hub_path(Path(name), offline=False)
    assert hub == []


def test_an_existing_folder_goes_first(hub: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert hub_path("owner/name", offline=False) == Path("owner/name")
    assert hub == []
