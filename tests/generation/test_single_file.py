"""Single files in the original layout: real block structure at small widths, with the network blocked."""

import copy
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from consistentid.errors import WeightsNotFound
from consistentid.faces.analysis import FaceAnalysis
from consistentid.generation import single_file
from consistentid.generation.base_layouts import LAYOUTS, write_layout
from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.inspection import inspect_weights
from consistentid.generation.single_file import load_single_file
from consistentid.identity.adapter import IdentityAdapter
from consistentid.identity.config import AdapterConfig

_TEXT = {"hidden_size": 64, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
_SMALL: dict[str, dict[str, Any]] = {
    "sd15": {
        "unet": {"block_out_channels": [32, 32, 64, 64], "cross_attention_dim": 64, "attention_head_dim": 2},
        "text_encoder": _TEXT,
    },
    "sdxl": {
        "unet": {
            "block_out_channels": [32, 32, 64], "attention_head_dim": 2, "transformer_layers_per_block": [1, 1, 2],
            "projection_class_embeddings_input_dim": 256 * 6 + 96, "cross_attention_dim": 160,
        },
        "text_encoder": _TEXT,
        "text_encoder_2": {**_TEXT, "hidden_size": 96, "projection_dim": 96, "num_hidden_layers": 10},
    },
}  # fmt: skip


@pytest.fixture(scope="session")
def ldm() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ldm", Path(__file__).with_name("ldm.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def small_layout(base: str) -> dict[str, dict[str, Any]]:
    """The released block structure, and the ten layers by which SDXL's file is told; small widths."""
    configs = copy.deepcopy(LAYOUTS[base])  # type: ignore[index]
    for part, changes in _SMALL[base].items():
        configs[part].update(changes)
    configs["vae"].update(block_out_channels=[32, 32, 32, 32])
    return configs


def random_pipeline(folder: Path, base: str) -> Any:
    """A pipeline with random weights of the layout in a folder."""
    torch.manual_seed(0)
    parts: dict[str, Any] = {
        "unet": diffusers.UNet2DConditionModel.from_config(diffusers.UNet2DConditionModel.load_config(folder / "unet")),
        "vae": diffusers.AutoencoderKL.from_config(diffusers.AutoencoderKL.load_config(folder / "vae")),
        "text_encoder": CLIPTextModel(CLIPTextConfig.from_pretrained(folder / "text_encoder")),
        "tokenizer": None,
        "scheduler": diffusers.DDIMScheduler(),
    }
    if base == "sdxl":
        second = CLIPTextConfig.from_pretrained(folder / "text_encoder_2")
        return diffusers.StableDiffusionXLPipeline(
            **parts, text_encoder_2=CLIPTextModelWithProjection(second), tokenizer_2=None, add_watermarker=False
        )
    return diffusers.StableDiffusionPipeline(
        **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )


@pytest.fixture(scope="module", params=["sd15", "sdxl"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, ldm: ModuleType) -> Any:
    """Base, folder of its configurations, pipeline, and its weights in one file."""
    folder = tmp_path_factory.mktemp(request.param)
    write_layout(folder / "config", small_layout(request.param))
    pipeline = random_pipeline(folder / "config", request.param)
    save_file(ldm.single_file(pipeline), folder / "model.safetensors")
    return request.param, folder / "config", pipeline, folder / "model.safetensors"


def test_a_single_file_is_the_same_model(shared: Any) -> None:
    base, config, pipeline, path = shared
    loaded = load_single_file(path, config=config)
    assert type(loaded) is type(pipeline)
    for name in ("unet", "vae", "text_encoder", *(["text_encoder_2"] if base == "sdxl" else [])):
        ours, theirs = getattr(loaded, name).state_dict(), getattr(pipeline, name).state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], value) for key, value in theirs.items()), name
    assert loaded.tokenizer("a man").input_ids == [49406, 320, 786, 49407]
    assert type(loaded.scheduler).__name__ == LAYOUTS[base]["scheduler"]["_class_name"]
    if base == "sdxl":
        assert loaded.tokenizer_2.pad_token == "!"


def test_without_a_folder_the_layout_is_derived(shared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    base, _, pipeline, path = shared
    monkeypatch.setitem(single_file.LAYOUTS, base, small_layout(base))
    found = inspect_weights(path)
    assert found.verdict == "layout of U-Net and autoencoder complete"
    assert {"sd15": "1.x", "sdxl": "XL"}[base] in found.kind
    loaded = load_single_file(path)
    assert torch.equal(loaded.unet.conv_in.weight, pipeline.unet.conv_in.weight)


def test_what_is_no_whole_base_model_is_one_sentence(shared: Any, tmp_path: Path) -> None:
    _, config, _, path = shared
    tensors = load_file(path)
    networks = ("diffusion_model.middle_block.1.norm.", "diffusion_model.out.2.", "encoder.conv_in.", "mlp.fc1.")
    for lost in (next(key for key in tensors if part in key) for part in networks):
        save_file({key: value for key, value in tensors.items() if key != lost}, tmp_path / "short.safetensors")
        with pytest.raises(WeightsNotFound, match=r"short\.safetensors .*missing \S+"):
            load_single_file(tmp_path / "short.safetensors", config=config)
    odd = "model.diffusion_model.middle_block.1.norm.weight"
    save_file({**tensors, odd: torch.zeros(5)}, tmp_path / "odd.safetensors")
    with pytest.raises(WeightsNotFound, match=r"mid_block.attentions.0.norm.weight is \(5,\) instead of \(64,\)"):
        load_single_file(tmp_path / "odd.safetensors", config=config)
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(WeightsNotFound, match="incomplete; download it again"):
        load_single_file(tmp_path / "cut.safetensors", config=config)
    save_file({"model.diffusion_model.x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsNotFound, match=r"other.safetensors"):
        load_single_file(tmp_path / "other.safetensors", config=config)
    with pytest.raises(WeightsNotFound, match=r"has no model_index.json"):
        load_single_file(path, config=tmp_path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    save_file({"lora_unet_x.lora_up.weight": torch.zeros(1)}, tmp_path / "lora.safetensors")
    with pytest.raises(WeightsNotFound, match="holds no base model"):
        load_single_file(tmp_path / "lora.safetensors")
    v2 = "model.diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight"
    save_file({v2: torch.zeros(1, 1024)}, tmp_path / "v2.safetensors")
    with pytest.raises(WeightsNotFound, match="of the kind 'v2'"):
        load_single_file(tmp_path / "v2.safetensors")
    (tmp_path / "old.ckpt").write_bytes(b"")
    with pytest.raises(WeightsNotFound, match="pickle"):
        load_single_file(tmp_path / "old.ckpt")
    with pytest.raises(WeightsNotFound, match="does not exist"):
        load_single_file(tmp_path / "none.safetensors")


def test_the_derived_vocabulary_is_clips(tmp_path: Path, root: Path) -> None:
    write_layout(tmp_path, {"tokenizer": LAYOUTS["sd15"]["tokenizer"]})
    from transformers import CLIPTokenizer

    ours = CLIPTokenizer.from_pretrained(tmp_path / "tokenizer")
    theirs = CLIPTokenizer.from_pretrained(root / "tests/fixtures/parity/tokenizer")
    assert ours.get_vocab() == theirs.get_vocab()
    text = "A 40-year-old woman's portrait, naïve café, 8k!"
    assert ours(text).input_ids == theirs(text).input_ids


@pytest.mark.parametrize(("base", "parameters"), [("sd15", 859_520_964), ("sdxl", 2_567_463_684)])
def test_full_size_layouts(base: str, parameters: int, tmp_path: Path) -> None:
    write_layout(tmp_path, LAYOUTS[base])  # type: ignore[index]
    with torch.device("meta"):
        pipeline = random_pipeline(tmp_path, base)
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in pipeline.components.items()
              if isinstance(part, torch.nn.Module)}  # fmt: skip
    assert counts["unet"] == parameters
    assert counts["vae"] == 83_653_863
    assert counts["text_encoder"] == 123_060_480
    assert counts.get("text_encoder_2", 694_659_840) == 694_659_840


def test_a_generator_runs_on_a_single_file(shared: Any, drawn: FaceAnalysis, tmp_path: Path) -> None:
    base, config, pipeline, path = shared
    widths = {"text_dim": pipeline.unet.config.cross_attention_dim, "projector_width": 64, "facial_width": 64}
    plain = AdapterConfig.preset("embedded", **widths, facial_depth=1, lora_rank=4)
    layer = {"quirks": {"text_layer": -2}} if base == "sdxl" else {}
    adapter_config = AdapterConfig.model_validate({**plain.model_dump(), "base": base, **layer})
    IdentityAdapter.new(adapter_config, pipeline.unet).save_pretrained(tmp_path)
    generator = PortraitGenerator.from_pretrained(path, base_config=config, adapter=tmp_path, dtype="float32")
    portrait = generator.generate(drawn, "a portrait", steps=1, size=(64, 64))[0]
    assert portrait.image.size == (64, 64)
    assert portrait.settings.model == str(path)
