"""Base models as folders: half precision where nothing else is there, and no weight drawn at random."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from consistentid.errors import WeightsNotFound
from consistentid.generation.base_folder import load_base_folder
from consistentid.generation.loading import quiet_loading

REVISION = "0" * 40


@pytest.fixture
def pipeline(tiny_model: Path) -> Any:
    return load_base_folder(tiny_model, offline=True)


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the hub's cache has owner/base."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--owner--base"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(REVISION)
    return repository / "snapshots" / REVISION


@pytest.mark.parametrize("place", ["folder", "hub"])
def test_half_precision_is_used_when_it_is_all_there_is(
    place: str, pipeline: Any, hub_cache: Path, tmp_path: Path
) -> None:
    folder = hub_cache if place == "hub" else tmp_path / "folder"
    pipeline.to(torch.float16).save_pretrained(folder, variant="fp16")
    assert (folder / "unet" / "diffusion_pytorch_model.fp16.safetensors").is_file()
    loaded = load_base_folder("owner/base" if place == "hub" else folder, offline=True)
    assert torch.equal(loaded.unet.conv_in.weight.half(), pipeline.unet.conv_in.weight)


def test_full_precision_goes_first(pipeline: Any, tmp_path: Path) -> None:
    expected = pipeline.unet.conv_in.weight.clone()
    pipeline.save_pretrained(tmp_path)
    pipeline.to(torch.float16).save_pretrained(tmp_path, variant="fp16")
    assert torch.equal(load_base_folder(tmp_path, offline=True).unet.conv_in.weight, expected)


def test_what_was_never_fetched_is_one_sentence(hub_cache: Path) -> None:
    for name in ("owner/base", "owner/other", "a/b/c"):
        with quiet_loading(), pytest.raises(WeightsNotFound, match=f"no Stable Diffusion pipeline at {name}"):
            load_base_folder(name, offline=True)


def test_a_unet_that_lacks_weights_is_refused(pipeline: Any, tmp_path: Path) -> None:
    pipeline.save_pretrained(tmp_path)
    file = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    del tensors["conv_in.weight"]
    save_file(tensors, file)
    with quiet_loading(), pytest.raises(WeightsNotFound, match=r"the U-Net of .* lacks conv_in\.weight; download it"):
        load_base_folder(tmp_path, offline=True)


@pytest.mark.parametrize("network", ["unet", "text_encoder"])
def test_a_truncated_file_is_one_sentence(network: str, pipeline: Any, tmp_path: Path) -> None:
    pipeline.save_pretrained(tmp_path)
    file = next((tmp_path / network).glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1000])
    with quiet_loading(), pytest.raises(WeightsNotFound, match="no Stable Diffusion pipeline at"):
        load_base_folder(tmp_path, offline=True)
