"""What is downloaded is named before, with size and licence; presets' names; a local image encoder."""

import logging
from pathlib import Path

import pytest
import torch
from tiny import tiny_pipeline
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from consistentid.errors import InvalidSettings, WeightsNotFound
from consistentid.generation.downloads import announce, named_parts
from consistentid.generation.loading import Parts, conditioner_for, load_controlnets
from consistentid.generation.origin import Origin
from consistentid.generation.sources import RELEASED_ENCODER, SOURCES, hub_path
from consistentid.identity.adapter import IdentityAdapter
from consistentid.identity.config import AdapterConfig

SD15 = ("stable-diffusion-v1-5/stable-diffusion-v1-5", "JackAILab/ConsistentID/ConsistentID-v1.bin")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Every download, with what had been said last; what was downloaded is in the cache."""
    downloads: list[tuple[str, str]] = []

    def snapshot_download(repository: str, *, allow_patterns: list[str], local_files_only: bool) -> str:
        from huggingface_hub.errors import LocalEntryNotFoundError

        folder = tmp_path / repository
        names = [pattern.replace("*", "x") for pattern in allow_patterns]
        if not local_files_only:
            downloads.append((repository, caplog.messages[-1]))
            for name in names:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).touch()
        if not folder.is_dir():
            raise LocalEntryNotFoundError(repository)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    return downloads


def test_a_preset_is_everything_it_needs(hub: list, caplog: pytest.LogCaptureFixture) -> None:
    assert named_parts("sd15", None, offline=False) == SD15
    assert hub == [
        (
            "JackAILab/ConsistentID",
            "downloading the face parser JackAILab/ConsistentID, 53 MB; licence: data for non-commercial research only",
        ),
        (SD15[0], f"downloading the base model {SD15[0]}, 2,740 MB; licence: CreativeML OpenRAIL-M"),
    ]
    assert "identity adapter JackAILab/ConsistentID, 669 MB; licence: MIT" in caplog.messages[-1]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    hub_path(SD15[1], offline=False)
    caplog.clear()
    assert named_parts("sd15", None, offline=False) == SD15
    assert named_parts(SD15[0], None, offline=False) == (SD15[0], None)
    assert caplog.messages == []


def test_nothing_is_said_where_nothing_is_downloaded(
    hub: list, caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert named_parts("sdxl", "mine", offline=True) == ("stabilityai/stable-diffusion-xl-base-1.0", "mine")
    assert named_parts(tmp_path, None, offline=False) == (tmp_path, None)
    assert named_parts("embedded", None, offline=False) == ("embedded", None)
    announce(None, "image encoder", offline=False)
    monkeypatch.chdir(tmp_path)
    Path("sd15").mkdir()
    assert named_parts("sd15", None, offline=False) == ("sd15", None), "a folder goes first"
    assert (hub, caplog.messages) == ([], [])


def test_what_the_table_lacks_is_announced_too(hub: list, caplog: pytest.LogCaptureFixture) -> None:
    named_parts("owner/model", "owner/adapter", offline=False)
    announce(RELEASED_ENCODER, "image encoder", offline=False)
    said = "owner/{0}, of a size that only the hub knows; licence: see https://huggingface.co/owner/{0}"
    assert caplog.messages == [
        "downloading the base model " + said.format("model"),
        "downloading the identity adapter " + said.format("adapter"),
        "downloading the image encoder h94/IP-Adapter, 2,530 MB; licence: Apache-2.0",
    ]
    assert hub == []


def test_presets_name_the_recogniser(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from consistentid.generation.sources import cached

    monkeypatch.setenv("INSIGHTFACE_ROOT", str(tmp_path))
    (pack,) = {source for sources in SOURCES.values() for source in sources if source.part == "face recogniser"}
    assert (pack.megabytes, pack.licence) == (289, "non-commercial research only")
    assert cached(pack) is None
    folder = tmp_path / "models" / "buffalo_l"
    folder.mkdir(parents=True)
    for name in ("det_10g.onnx", "w600k_r50.onnx"):
        (folder / name).touch()
    assert cached(pack) == folder


def test_a_local_image_encoder(tmp_path: Path) -> None:
    vision = {"intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "projection_dim": 16}
    for width in (32, 64):
        config = CLIPVisionConfig(hidden_size=width, image_size=32, patch_size=8, **vision)
        CLIPVisionModelWithProjection(config).save_pretrained(tmp_path / str(width))
    pipeline = tiny_pipeline(tmp_path / "tiny")
    config = AdapterConfig.preset(
        "embedded", text_dim=64, projector_width=64, facial_width=64, image_dim=32, image_tokens=17, lora_rank=4,
        image_encoder={"kind": "clip", "source": "not here"},
    )  # fmt: skip
    adapter = IdentityAdapter.new(config, pipeline.unet)
    fitting, other = (
        Parts(pipeline, adapter, None, Origin(image_encoder=str(tmp_path / width))) for width in ("32", "64")
    )
    assert conditioner_for(fitting, offline=True).image_encoder.hidden_size == 32
    with pytest.raises(InvalidSettings, match="gives 17 x 64 features, the adapter expects 17 x 32"):
        conditioner_for(other, offline=True)


def test_a_controlnet_is_announced(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(WeightsNotFound, match="no ControlNet at nobody/net"):  # the tests have no network
        load_controlnets(["nobody/net"], dtype=torch.float32, offline=False)
    assert "downloading the ControlNet nobody/net, of a size that only the hub knows" in caplog.text
