"""`consistentid weights`, on small checkpoints under the released part names."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from consistentid.cli.app import main
from consistentid.faces.bisenet import BiSeNet
from consistentid.identity import checkpoint
from consistentid.identity.adapter import IdentityAdapter
from consistentid.identity.checkpoint import write_official
from consistentid.identity.config import AdapterConfig
from consistentid.identity.layout import ip_adapter_shapes


@pytest.fixture
def released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint in bf16 with the released part names, for a tiny U-Net that stands for SD 1.5."""
    from diffusers import UNet2DConditionModel

    config = AdapterConfig.preset(
        "embedded", text_dim=64, projector_width=64, facial_width=64, identity_dim=16, image_dim=32, image_tokens=17,
        lora_rank=4, image_encoder={"kind": "clip", "source": "unused"},
    ).model_copy(update={"base": "sd15", "mode": "official"})  # fmt: skip
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=64, attention_head_dim=16,
    )  # fmt: skip
    monkeypatch.setattr(checkpoint, "official_ip_adapter_shapes", lambda base, rank=4: ip_adapter_shapes(unet, rank))
    monkeypatch.setattr(AdapterConfig, "preset", classmethod(lambda cls, base, **changes: config))
    path = tmp_path / "released.safetensors"
    write_official(IdentityAdapter.new(config, unet), path)
    save_file({key: value.bfloat16() for key, value in load_file(path).items()}, path)
    return path


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return int(end.value.code or 0)


def test_a_released_checkpoint_becomes_a_folder(released, tmp_path, capsys):
    assert run("weights", "verify", released) == 0
    said = capsys.readouterr().out
    assert "released ConsistentID for SD 1.5" in said
    assert "bfloat16" in said
    assert "layout complete" in said
    folder = tmp_path / "adapter"
    assert run("weights", "convert", released, folder) == 0
    assert json.loads((folder / "config.json").read_text())["mode"] == "official"
    state = load_file(folder / "adapter.safetensors")
    assert {value.dtype for value in state.values()} == {torch.bfloat16}
    assert len(state) == len(load_file(released))
    assert run("weights", "verify", folder) == 0
    assert "identity adapter for sd15, official mode" in capsys.readouterr().out
    assert run("weights", "convert", released, folder) == 1
    assert "exists" in capsys.readouterr().err


def test_an_incomplete_checkpoint_is_named_and_not_converted(released, tmp_path, capsys):
    state = load_file(released)
    gone = next(key for key in state if key.startswith("adapter_modules."))
    del state[gone]
    save_file(state, released)
    assert run("weights", "verify", released) == 1
    assert f"missing {gone}" in capsys.readouterr().out
    assert run("weights", "convert", released, tmp_path / "adapter") == 1
    assert f"missing {gone}" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["released.safetensors"]


@pytest.mark.parametrize(
    ("tensors", "kind"),
    [
        ({"model.diffusion_model.x": 1, "cond_stage_model.model.ln_final.bias": 1}, "Stable Diffusion 2.x"),
        ({"vision_model.embeddings.patch_embedding.weight": 1280, "vision_model.x": 1}, "CLIP ViT-H"),
        ({"emb_params": 768}, "textual inversion"),
        ({"clip_l": 768, "clip_g": 1280}, "textual inversion"),
        ({"<cat-toy>": 768}, "textual inversion"),
        ({"image_proj.latents": 1, "ip_adapter.1.to_k_ip.weight": 1}, "IP-Adapter without FacialEncoder"),
        ({"lora_unet_down_blocks_0.lora_up.weight": 1}, "LoRA of a base model"),
        ({"something": 1}, "unknown"),
    ],
)
def test_other_files_are_told_apart(tensors, kind, tmp_path, capsys):
    path = tmp_path / "file.safetensors"
    save_file({key: torch.zeros(size) for key, size in tensors.items()}, path)
    assert run("weights", "verify", path) == int(kind == "unknown")
    said = capsys.readouterr().out
    assert kind in said
    assert "complete" not in said
    assert run("weights", "convert", path, tmp_path / "adapter") == 1
    assert "no released checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tensors", "kind"),
    [
        ({"model.diffusion_model.time_embed.0.weight": 1}, "single-file Stable Diffusion 1.x"),
        ({"model.diffusion_model.x": 1, "conditioner.embedders.1.model.x": 1}, "single-file Stable Diffusion XL"),
        ({"image_proj.proj.0.bias": 1, "FacialEncoder.x": 1}, "released ConsistentID for SD 1.5"),
    ],
)
def test_what_lacks_tensors_of_a_known_layout_is_not_complete(tensors, kind, tmp_path, capsys):
    path = tmp_path / "file.safetensors"
    save_file({key: torch.zeros(size) for key, size in tensors.items()}, path)
    assert run("weights", "verify", path) == 1
    said = capsys.readouterr().out
    assert kind in said
    assert "missing" in said
    assert "complete" not in said


@pytest.mark.parametrize("change", ["lost", "misshaped"])
def test_an_adapters_folder_is_compared_with_its_base_model(change, released, tmp_path, capsys):
    assert run("weights", "convert", released, tmp_path / "adapter") == 0
    path = tmp_path / "adapter" / "adapter.safetensors"
    state = load_file(path)
    state.pop("ip_adapter.1.to_k_ip.weight")
    if change == "misshaped":
        state["ip_adapter.1.to_k_ip.weight"] = torch.zeros(2, 2)
    save_file(state, path)
    assert run("weights", "verify", tmp_path / "adapter") == 1
    assert "1.to_k_ip.weight" in capsys.readouterr().out


def test_an_embedded_adapter_is_compared_with_the_unet_beside_it(model, tmp_path, capsys):
    shutil.copytree(model / "adapter", tmp_path / "adapter")
    assert run("weights", "verify", tmp_path / "adapter") == 0
    assert "layout of projector and FacialEncoder complete" in capsys.readouterr().out
    assert run("weights", "verify", model / "adapter") == 0
    assert "layout complete" in capsys.readouterr().out


def test_a_damaged_file_does_not_hide_the_others(released, tmp_path, capsys):
    (tmp_path / "bad.bin").write_bytes(b"not weights")
    assert run("weights", "verify", tmp_path / "bad.bin", released) == 1
    said = capsys.readouterr()
    assert "layout complete" in said.out
    assert "bad.bin is no checkpoint" in said.err


def test_a_face_parser_is_known_by_its_layout(tmp_path, capsys):
    state = BiSeNet().state_dict()
    torch.save(state, tmp_path / "face_parsing.pth")
    assert run("weights", "verify", tmp_path / "face_parsing.pth") == 0
    assert "BiSeNet face parser" in capsys.readouterr().out
    state.popitem()
    torch.save(state, tmp_path / "short.pth")
    assert run("weights", "verify", tmp_path / "short.pth") == 1


def test_damaged_files_are_refused(tmp_path, capsys):
    for name in ("a.safetensors", "b.bin"):
        (tmp_path / name).write_bytes(b"not weights")
        assert run("weights", "verify", tmp_path / name) == 1
        assert "download it again" in capsys.readouterr().err


def test_sizes_and_licences_come_before_any_download(capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", _no_download)
    assert run("weights", "list") == 0
    assert run("weights", "fetch", "sd15") == 0
    said = capsys.readouterr().out
    assert "669 MB to fetch" in said
    assert "non-commercial" in said
    assert "Nothing was downloaded" in said
    assert run("weights", "fetch", "sd15", "--offline") == 1
    assert "cannot get the identity adapter from JackAILab/ConsistentID" in capsys.readouterr().err


def _no_download(repository, *, local_files_only, **_):
    from huggingface_hub.errors import LocalEntryNotFoundError

    assert local_files_only, f"{repository} would be downloaded"
    raise LocalEntryNotFoundError(repository)


_HUB = {
    "JackAILab/ConsistentID": ["ConsistentID-v1.bin", "ConsistentID_SDXL-v1.bin", "face_parsing.pth"],
    "h94/IP-Adapter": ["models/image_encoder/config.json", "models/image_encoder/model.safetensors"],
    "stable-diffusion-v1-5/stable-diffusion-v1-5": [
        "v1-5-pruned.safetensors", "model_index.json", "scheduler/scheduler_config.json", "tokenizer/merges.txt",
        *(f"{part}/config.json" for part in ("unet", "vae", "text_encoder", "safety_checker")),
        *(f"{part}/diffusion_pytorch_model{kind}.safetensors" for part in ("unet", "vae") for kind in ("", ".fp16")),
        *(f"{part}/model{kind}.safetensors" for part in ("text_encoder", "safety_checker") for kind in ("", ".fp16")),
    ],
    "stabilityai/stable-diffusion-xl-base-1.0": [
        "sd_xl_base_1.0.safetensors", "model_index.json", "scheduler/scheduler_config.json", "tokenizer_2/merges.txt",
        "unet/diffusion_pytorch_model.fp16.safetensors", "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.fp16.safetensors", "vae_1_0/diffusion_pytorch_model.fp16.safetensors",
        "text_encoder/model.fp16.safetensors", "text_encoder_2/model.fp16.safetensors",
    ],
}  # fmt: skip


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub that lays its files out as the real one; the folder of what was downloaded from it."""

    def snapshot_download(repository, *, allow_patterns, local_files_only):
        from huggingface_hub.errors import LocalEntryNotFoundError
        from huggingface_hub.utils import filter_repo_objects

        folder = tmp_path / repository
        if not local_files_only:
            for name in filter_repo_objects(_HUB[repository], allow_patterns=allow_patterns):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).touch()
        if not folder.is_dir():
            raise LocalEntryNotFoundError(repository)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.setenv("INSIGHTFACE_ROOT", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("preset", ["sd15", "sdxl"])
def test_what_was_fetched_is_known_as_fetched(preset, hub, capsys):
    base = {"sd15": "stable-diffusion-v1-5/stable-diffusion-v1-5", "sdxl": "stabilityai/stable-diffusion-xl-base-1.0"}
    assert run("weights", "fetch", preset, "--yes") == 0
    assert f"base model: {hub / base[preset]}" in capsys.readouterr().out
    files = {path.name for path in (hub / base[preset]).rglob("*.safetensors")}
    assert files == {"diffusion_pytorch_model.fp16.safetensors", "model.fp16.safetensors"}
    assert run("weights", "list") == 0
    assert f"base model: {base[preset]}, fetched" in capsys.readouterr().out
    assert run("weights", "fetch", preset, "--offline") == 1
    assert "InsightFace fetches it when a photo is first analysed" in capsys.readouterr().err
    (hub / "models" / "buffalo_l").mkdir(parents=True)
    for name in ("det_10g.onnx", "w600k_r50.onnx"):
        (hub / "models" / "buffalo_l" / name).touch()
    assert run("weights", "fetch", preset, "--offline") == 0
    (hub / base[preset] / "text_encoder" / "model.fp16.safetensors").unlink()
    assert run("weights", "fetch", preset, "--offline") == 1
    assert "lacks text_encoder/*.fp16*.safetensors" in capsys.readouterr().err
