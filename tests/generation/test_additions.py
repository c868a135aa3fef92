"""Community LoRAs, textual inversions and clip skip, on tiny models."""

import copy
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from tiny import tiny_adapter, tiny_pipeline, tiny_sdxl

from consistentid.errors import InvalidSettings, WeightsNotFound
from consistentid.faces.analysis import FaceAnalysis
from consistentid.generation import additions
from consistentid.generation.additions import expanded, fuse_loras, load_textual_inversions, name_and_weight
from consistentid.generation.generator import PortraitGenerator
from consistentid.identity.layout import attention_layers

PROMPT = "a portrait of a person"


@pytest.fixture
def pipeline(tmp_path: Path) -> Any:
    return tiny_pipeline(tmp_path / "tiny")


def lora_file(pipeline: Any, path: Path, *, kohya: bool = False) -> Path:
    """A LoRA with effect for a pipeline's U-Net, in diffusers' or in kohya's layout."""
    unet = copy.deepcopy(pipeline.unet)
    unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    state = {key: value.contiguous() for key, value in get_peft_model_state_dict(unet).items()}
    if kohya:
        names = {key.rsplit(".lora_", 1)[0] for key in state}
        plain = state
        state = {}
        for name in names:
            flat = "lora_unet_" + name.replace(".", "_")
            state[f"{flat}.lora_down.weight"] = plain[f"{name}.lora_A.weight"]
            state[f"{flat}.lora_up.weight"] = plain[f"{name}.lora_B.weight"]
            state[f"{flat}.alpha"] = torch.tensor(1.0)
        save_file(state, path)
    else:
        save_file({f"unet.{key}": value for key, value in state.items()}, path)
    return path


def weights(pipeline: Any) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in pipeline.unet.state_dict().items()}


@pytest.mark.parametrize("kohya", [False, True])
def test_loras_are_added_with_their_weight(pipeline: Any, tmp_path: Path, kohya: bool) -> None:
    path = lora_file(pipeline, tmp_path / "style.safetensors", kohya=kohya)
    before = weights(pipeline)
    layers = [(name, type(layer)) for name, layer in pipeline.unet.named_modules()]
    half, whole = copy.deepcopy(pipeline), copy.deepcopy(pipeline)
    fuse_loras(half, [f"{path}:0.5"])
    fuse_loras(whole, [str(path)])
    changed = [key for key, value in weights(whole).items() if not torch.equal(value, before[key])]
    assert changed
    assert all("to_q" in key or "to_v" in key for key in changed)
    for key in changed:
        halves = 2 * (weights(half)[key] - before[key])
        torch.testing.assert_close(halves, weights(whole)[key] - before[key], rtol=1e-3, atol=1e-6)
    assert [(name, type(layer)) for name, layer in whole.unet.named_modules()] == layers, "no layer is left behind"
    two = copy.deepcopy(pipeline)
    fuse_loras(two, [f"{path}:0.25", f"{path}:0.25"])
    for key in changed:
        torch.testing.assert_close(weights(two)[key], weights(half)[key], rtol=1e-3, atol=1e-5)


def test_a_lora_stays_beside_the_adapter(tiny_model: Path, drawn: FaceAnalysis, tmp_path: Path) -> None:
    base = diffusers.StableDiffusionPipeline.from_pretrained(tiny_model)
    path = lora_file(base, tmp_path / "style.safetensors")
    options = {"steps": 2, "output_type": "latent", "identity_scale": 0, "regions": (), "caption": ""}
    made = {}
    for name, loras in {"with": [str(path)], "without": []}.items():
        generator = PortraitGenerator.from_pretrained(tiny_model, dtype="float32", loras=loras)
        made[name] = generator.generate(drawn, PROMPT, **options)[0]
    assert not torch.equal(made["with"].latents, made["without"].latents)
    assert made["with"].settings.weights_sha256 != made["without"].settings.weights_sha256


def test_a_wrong_lora_changes_nothing(pipeline: Any, tmp_path: Path) -> None:
    xl, _ = tiny_sdxl(pipeline)
    good = lora_file(pipeline, tmp_path / "good.safetensors")
    wrong = lora_file(xl, tmp_path / "xl.safetensors")
    before = weights(pipeline)
    with pytest.raises(
        WeightsNotFound, match=r"xl\.safetensors is a LoRA of another base model: \d+ of its \d+ layers"
    ):
        fuse_loras(pipeline, [str(good), str(wrong)])
    save_file({"something": torch.zeros(1)}, tmp_path / "other.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(b"no weights")
    for name, message in (("other", "no LoRA"), ("damaged", "download it again"), ("none", "does not exist")):
        with pytest.raises(WeightsNotFound, match=message):
            fuse_loras(pipeline, [str(tmp_path / f"{name}.safetensors")])
    after = weights(pipeline)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


class Packed(torch.nn.Linear):
    """A linear layer whose weight is packed as bitsandbytes packs 4 bits: (n + 1) // 2 bytes in one column."""

    def __init__(self, plain: torch.nn.Linear) -> None:
        super().__init__(plain.in_features, plain.out_features, plain.bias is not None)
        self.plain = [plain]  # in a list, so that it is no submodule
        packed = torch.zeros((plain.weight.numel() + 1) // 2, 1, dtype=torch.uint8)
        self.weight = torch.nn.Parameter(packed, requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.plain[0](x)


def test_packed_weights_take_the_same_adapter_and_loras(pipeline: Any, tmp_path: Path) -> None:
    path = lora_file(pipeline, tmp_path / "style.safetensors")
    adapter = tiny_adapter(pipeline)
    inputs = (torch.randn(1, 4, 8, 8, generator=torch.manual_seed(0)), 5, torch.randn(1, 77, 64))
    made = []
    for packed in (False, True):
        if packed:
            for layer in attention_layers(pipeline.unet):
                for name in ("to_q", "to_k", "to_v"):
                    setattr(layer.module, name, Packed(getattr(layer.module, name)))
        assert additions._lora_state(pipeline, str(path), offline=True)
        adapter.attach(pipeline)
        tokens = adapter.identity_tokens(torch.ones(1, 128), torch.ones(1, 64, 448))
        given = {"image_embeds": [torch.zeros(1, 1, 128)]}
        with torch.no_grad(), adapter.fixed_tokens(tokens):
            made.append(pipeline.unet(*inputs, added_cond_kwargs=given).sample)
        adapter.detach()
    assert torch.equal(*made)


def test_weights_are_read_from_the_name() -> None:
    assert name_and_weight("a/b.safetensors:0.8") == ("a/b.safetensors", 0.8)
    assert name_and_weight("b.safetensors") == ("b.safetensors", 1.0)
    assert name_and_weight(r"C:\b.safetensors") == (r"C:\b.safetensors", 1.0)


def test_a_word_of_two_vectors(tiny_model: Path, drawn: FaceAnalysis, tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "<watercolour>.safetensors"
    vectors = torch.randn(2, 64)
    save_file({"emb_params": vectors}, path)
    generator = PortraitGenerator.from_pretrained(tiny_model, dtype="float32", textual_inversions=[str(path)])
    assert expanded(generator.pipeline, "a <watercolour> face") == "a <watercolour> <watercolour>_1 face"
    portrait = generator.generate(drawn, "a <watercolour> portrait", steps=1)[0]
    assert "<watercolour> <watercolour>_1" in portrait.settings.facial_prompt
    assert portrait.settings.prompt == "a <watercolour> portrait"
    ids = generator.pipeline.tokenizer("<watercolour> <watercolour>_1").input_ids[1:-1]
    assert len(ids) == 2
    table = generator.pipeline.text_encoder.get_input_embeddings().weight
    assert torch.equal(table[ids], vectors)


def test_words_of_sdxl_have_a_vector_for_each_encoder(pipeline: Any, tmp_path: Path) -> None:
    xl, _ = tiny_sdxl(pipeline)
    xl.tokenizer_2 = copy.deepcopy(xl.tokenizer)
    path = tmp_path / "inkstyle.safetensors"
    vectors = {"clip_l": torch.randn(1, 64), "clip_g": torch.randn(1, 64)}
    save_file(vectors, path)
    assert load_textual_inversions(xl, [str(path)]) == ["inkstyle"]
    for tokenizer, encoder, name in (
        (xl.tokenizer, xl.text_encoder, "clip_l"),
        (xl.tokenizer_2, xl.text_encoder_2, "clip_g"),
    ):
        index = tokenizer.convert_tokens_to_ids("inkstyle")
        assert torch.equal(encoder.get_input_embeddings().weight[index], vectors[name][0])
    with pytest.raises(InvalidSettings, match="knows the word 'inkstyle' already"):
        load_textual_inversions(xl, [str(path)])


def test_words_of_another_base_change_nothing(pipeline: Any, tmp_path: Path) -> None:
    size = len(pipeline.tokenizer)
    save_file({"clip_l": torch.zeros(1, 64), "clip_g": torch.zeros(1, 64)}, tmp_path / "xl.safetensors")
    save_file({"emb_params": torch.zeros(1, 32)}, tmp_path / "narrow.safetensors")
    for name in ("xl", "narrow"):
        with pytest.raises(WeightsNotFound, match="textual inversion of another base model"):
            load_textual_inversions(pipeline, [str(tmp_path / f"{name}.safetensors")])
    save_file({"a": torch.zeros(1), "b": torch.zeros(1)}, tmp_path / "two.safetensors")
    with pytest.raises(WeightsNotFound, match="no textual inversion; it holds 2 tensors"):
        load_textual_inversions(pipeline, [str(tmp_path / "two.safetensors")])
    assert len(pipeline.tokenizer) == size


def without_adapter(generator: PortraitGenerator, face: FaceAnalysis, **settings: Any) -> torch.Tensor:
    """Latents of the base model."""
    options = {"steps": 2, "size": (64, 64), "scheduler": "ddim", "guidance": 1.0, "output_type": "latent"}
    plain = {"caption": "", "regions": (), "identity_scale": 0}
    latents = generator.generate(face, PROMPT, **options, **plain, **settings)[0].latents
    assert latents is not None
    return latents


def test_clip_skip_takes_an_earlier_layer(pipeline: Any, drawn: FaceAnalysis) -> None:
    generator = PortraitGenerator(pipeline, tiny_adapter(pipeline), analyzer=None)
    skipped, usual = without_adapter(generator, drawn, clip_skip=1), without_adapter(generator, drawn)
    assert not torch.equal(skipped, usual)
    with pytest.raises(InvalidSettings, match="clip_skip 9 must be less than 2"):
        generator.generate(drawn, PROMPT, clip_skip=9, steps=1)
    generator.adapter.detach()
    ids = pipeline.tokenizer(PROMPT, padding="max_length", return_tensors="pt").input_ids
    encoder = pipeline.text_encoder
    with torch.no_grad():  # what diffusers computes; its own clip_skip fails with transformers 5.6 and newer
        text = encoder.final_layer_norm(encoder(ids, output_hidden_states=True).hidden_states[-2])
    theirs = pipeline(
        prompt_embeds=text, num_inference_steps=2, guidance_scale=1.0, output_type="latent",
        generator=[torch.Generator().manual_seed(0)],
    ).images[0]  # fmt: skip
    torch.testing.assert_close(skipped, theirs, rtol=0, atol=0)


def test_clip_skip_of_sdxl_is_that_of_diffusers(pipeline: Any, drawn: FaceAnalysis) -> None:
    xl, adapter = tiny_sdxl(pipeline)
    generator = PortraitGenerator(xl, adapter, analyzer=None)
    skipped = without_adapter(generator, drawn, clip_skip=1)
    assert not torch.equal(skipped, without_adapter(generator, drawn))
    adapter.detach()
    theirs = xl(
        PROMPT, num_inference_steps=2, guidance_scale=1.0, width=64, height=64, clip_skip=1,
        generator=[torch.Generator().manual_seed(0)], output_type="latent",
    ).images[0]  # fmt: skip
    torch.testing.assert_close(skipped, theirs, rtol=0, atol=0)


def test_models_that_read_their_guidance_run_without_a_guidance_branch(pipeline: Any, drawn: FaceAnalysis) -> None:
    plain = {key: value for key, value in pipeline.unet.config.items() if not key.startswith("_")}
    config = {**plain, "time_cond_proj_dim": 16}
    torch.manual_seed(0)
    pipeline.register_modules(unet=diffusers.UNet2DConditionModel.from_config(config).eval())
    generator = PortraitGenerator(pipeline, tiny_adapter(pipeline), analyzer=None)
    rows: list[int] = []
    handle = pipeline.unet.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    options = {"steps": 4, "scheduler": "lcm", "output_type": "latent"}
    made = [generator.generate(drawn, PROMPT, guidance=guidance, **options)[0].latents for guidance in (8.0, 1.5)]
    handle.remove()
    assert rows == [1] * 8
    assert not torch.equal(made[0], made[1])
