import pytest
import torch
from diffusers.models.attention_processor import SlicedAttnProcessor

from consistentid.errors import InvalidSettings
from consistentid.faces.analysis import FaceAnalysis
from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.optimisation import Optimisation, check_optimisation, loading_arguments
from consistentid.identity.layout import attention_layers

PROMPT = "a portrait of a person"


@pytest.fixture
def load(tiny_model):
    def load_one(**chosen) -> PortraitGenerator:
        return PortraitGenerator.from_pretrained(tiny_model, dtype="float32", optimisation=Optimisation(**chosen))

    return load_one


@pytest.fixture
def usual(generator: PortraitGenerator, drawn: FaceAnalysis) -> torch.Tensor:
    return latents(generator, drawn)


def latents(generator: PortraitGenerator, face: FaceAnalysis) -> torch.Tensor:
    return generator.generate(face, PROMPT, output_type="latent", steps=3, merge_step=1)[0].latents


@pytest.mark.parametrize("chosen", [{"channels_last": False}, {"attention_slicing": True}])
def test_the_portrait_stays_the_same(load, drawn, usual, chosen) -> None:
    generator = load(**chosen)
    torch.testing.assert_close(latents(generator, drawn), usual, rtol=1e-4, atol=1e-4)
    weight = generator.pipeline.unet.conv_in.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) == chosen.get("channels_last", True)


def test_self_attention_is_sliced_and_restored(load) -> None:
    generator = load(attention_slicing=True)
    unet = generator.pipeline.unet
    sliced = [isinstance(layer.module.processor, SlicedAttnProcessor) for layer in attention_layers(unet)]
    assert sliced == [not layer.is_cross for layer in attention_layers(unet)]
    generator.adapter.detach()
    assert not any(isinstance(processor, SlicedAttnProcessor) for processor in unet.attn_processors.values())


def test_a_single_file_is_not_packed(tmp_path) -> None:
    with pytest.raises(InvalidSettings, match="not as one file"):
        PortraitGenerator.from_pretrained(tmp_path / "base.safetensors", optimisation=Optimisation(quantization="8bit"))


def test_vae_slicing_and_tiling(load) -> None:
    vae = load(vae_slicing=True, vae_tiling=True).pipeline.vae
    assert (vae.use_slicing, vae.use_tiling) == (True, True)
    vae = load().pipeline.vae
    assert (vae.use_slicing, vae.use_tiling) == (False, False)


def test_blocks_are_compiled_and_keys_are_then_not_kept(load, monkeypatch) -> None:
    compiled = []
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self: compiled.append(self) or setattr(self, "_compiled_call_impl", len)
    )
    from consistentid.identity.kept_keys import kept_keys_and_values

    unet = load(compile=True).pipeline.unet
    assert {type(block).__name__ for block in compiled} == {"BasicTransformerBlock"}
    with kept_keys_and_values(unet):
        assert not any("forward" in vars(module) for module in unet.modules())


@pytest.mark.parametrize("way", ["model", "sequential"])
def test_offloading_needs_an_accelerator(load, way) -> None:
    with pytest.raises(InvalidSettings, match=rf"offload={way} moves weights .* device=cuda"):
        load(offload=way)
    check_optimisation(Optimisation(offload=way), device=torch.device("cuda"))


def test_quantization_needs_bitsandbytes(load, monkeypatch) -> None:
    monkeypatch.setattr("consistentid.generation.optimisation.find_spec", lambda name: None)
    with pytest.raises(InvalidSettings, match=r"4bit needs bitsandbytes, .* pip install bitsandbytes"):
        load(quantization="4bit")


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_only_the_unet_is_quantized(monkeypatch, bits) -> None:
    from diffusers.quantizers import PipelineQuantizationConfig

    monkeypatch.setattr(PipelineQuantizationConfig, "_validate_init_args", lambda self: None)  # asks for the package
    config = loading_arguments(Optimisation(quantization=bits))["quantization_config"]
    assert config.quant_backend == f"bitsandbytes_{bits}"
    assert config.quant_kwargs == {f"load_in_{bits}": True}
    assert config.components_to_quantize == ["unet"]
    assert not Optimisation(quantization=bits).merges_loras
    assert loading_arguments(Optimisation()) == {}


def test_what_excludes_each_other_is_refused() -> None:
    with pytest.raises(InvalidSettings, match="compile and offload"):
        check_optimisation(Optimisation(offload="model", compile=True), device=torch.device("cuda"))
