import stat

import pytest
import torch

from consistentid.identity.checksum import WeightsChecksum, checksum
from consistentid.identity.tensor_cache import TensorCache, default_folder


class Compute:
    """Makes another tensor every time, so that it shows where a result came from."""

    def __init__(self):
        self.times = 0

    def __call__(self):
        self.times += 1
        return {"x": torch.full((3, 5), float(self.times)), "empty": torch.zeros(0)}


@pytest.fixture
def compute():
    return Compute()


def test_known_in_memory_and_in_the_next_process(tmp_path, compute):
    first = TensorCache(tmp_path / "new" / "folder")
    assert first.get(("a", 1), compute) is first.get(("a", 1), compute)
    again = TensorCache(tmp_path / "new" / "folder").get(("a", 1), compute)
    assert compute.times == 1
    assert torch.equal(again["x"], torch.ones(3, 5))
    assert first.get(("a", 2), compute)["x"][0, 0] == 2


def test_only_the_owner_can_read_and_nothing_half_written_stays(tmp_path, compute):
    TensorCache(tmp_path / "folder").get("key", compute)
    (file,) = (tmp_path / "folder").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert file.suffix == ".safetensors"


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "other"])
def test_a_damaged_file_is_computed_again(tmp_path, compute, damage, caplog):
    TensorCache(tmp_path).get("key", compute)
    (file,) = tmp_path.iterdir()
    data = file.read_bytes()
    flipped = data[:-7] + bytes([data[-7] ^ 1]) + data[-6:]
    file.write_bytes({"cut": data[:-9], "flipped": flipped, "emptied": b"", "other": b"hello, world"}[damage])
    assert TensorCache(tmp_path).get("key", compute)["x"][0, 0] == 2
    assert "computed again" in caplog.text
    assert TensorCache(tmp_path).get("key", compute)["x"][0, 0] == 2


def test_the_oldest_are_forgotten(tmp_path, compute):
    cache = TensorCache(tmp_path, in_memory=1, on_disk=2)
    for key in ("a", "b", "c"):
        cache.get(key, compute)
    assert len(list(tmp_path.iterdir())) == 2
    cache.get("c", compute)
    assert compute.times == 3
    cache.get("a", compute)
    assert compute.times == 4


def test_without_a_folder_or_with_one_that_is_none(tmp_path, compute, caplog):
    TensorCache().get("key", compute, keep_file=True)
    TensorCache(tmp_path).get("key", compute, keep_file=False)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    cache = TensorCache(tmp_path / "file")
    assert cache.get("key", compute)["x"][0, 0] == cache.get("key", compute)["x"][0, 0] == 3
    assert "stays in memory only" in caplog.text


def test_folder_by_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("CONSISTENTID_CACHE", str(tmp_path))
    assert default_folder() == tmp_path
    monkeypatch.delenv("CONSISTENTID_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "consistentid"


def test_checksum_sees_every_bit_and_the_order_of_words():
    weights = {"w": torch.arange(5000.0), "b": torch.zeros(3, dtype=torch.bfloat16)}
    seen = {checksum(weights)}
    for index in (0, 1, 4095, 4999):
        changed = weights["w"].clone()
        changed[index] = torch.nextafter(changed[index], torch.tensor(9e9))
        seen.add(checksum(weights | {"w": changed}))
    seen.add(checksum(weights | {"w": weights["w"].roll(2)}))
    seen.add(checksum(weights | {"w": weights["w"].view(2, -1)}))
    seen.add(checksum(weights | {"b": torch.zeros(3, dtype=torch.float16)}))
    seen.add(checksum({"v": weights["w"], "b": weights["b"]}))
    assert len(seen) == 9
    assert checksum({key: value.clone() for key, value in weights.items()}) in seen


def test_checksum_is_remembered_until_a_weight_changes(monkeypatch):
    from consistentid.identity import checksum as module

    asked = []
    monkeypatch.setattr(module, "checksum", lambda tensors: asked.append(1) or checksum(tensors))
    sums, layer = WeightsChecksum(), torch.nn.Linear(40, 40)
    first = sums.of("layer", layer.state_dict())
    assert sums.of("layer", layer.state_dict()) == first
    with torch.no_grad():
        layer.weight[3, 3] += 1
    assert sums.of("layer", layer.state_dict()) != first
    assert len(asked) == 2
    assert sums.of("offloaded", layer.to("meta").state_dict()) is None
