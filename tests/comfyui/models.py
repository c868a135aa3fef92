"""Tiny random SD 1.5 and SDXL: the same weights in diffusers' classes and in ComfyUI's."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import comfy.model_base
import comfy.model_detection
import comfy.model_patcher
import comfy.sd
import comfy.sd1_clip
import comfy.sdxl_clip
import comfy.supported_models
import comfy.supported_models_base
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from consistentid.generation.analyses import Analyses
from consistentid.generation.base_layouts import LAYOUTS, write_layout
from consistentid.generation.generator import PortraitGenerator
from consistentid.identity.adapter import IdentityAdapter
from consistentid.identity.config import OFFICIAL_SD15, OFFICIAL_SDXL, AdapterConfig, Quirks
from consistentid.identity.image_encoder import image_encoder_for

WIDTH = 64  # of a text encoder
_TEXT = {
    "hidden_size": WIDTH, "intermediate_size": WIDTH, "num_hidden_layers": 3, "num_attention_heads": 2,
    "max_position_embeddings": 77, "hidden_act": "quick_gelu",
}  # fmt: skip
_NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def _by_name(name: str, path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


tiny = _by_name("tiny", Path(__file__).parents[1] / "generation" / "tiny.py")
ldm = _by_name("ldm", Path(__file__).parents[1] / "generation" / "ldm.py")


def twins(name: str, *, folder: Path) -> tuple[PortraitGenerator, Any, Any, Any]:
    """See `conftest.Twins`; the name is a base, with `official_` before it for the conventions of the release."""
    base = name.removeprefix("official_")
    pipeline = _pipeline(base, folder)
    adapter = _adapter(base, pipeline, official=name != base)
    model, clip = _model(base, pipeline.unet), _clip(base, pipeline)
    own = IdentityAdapter.from_state(adapter.config, {k: v.clone() for k, v in adapter.state().items()}, source=base)
    sockets = sys.modules["consistentid_nodes.sockets"]
    loaded = sockets.Loaded(own, Analyses(None), image_encoder_for(own.config.image_encoder))
    return PortraitGenerator(pipeline, adapter, analyzer=None), model, clip, loaded


def _pipeline(base: str, folder: Path) -> Any:
    write_layout(folder, {"tokenizer": LAYOUTS["sdxl"]["tokenizer"], "tokenizer_2": LAYOUTS["sdxl"]["tokenizer_2"]})
    tokenizers = [CLIPTokenizer.from_pretrained(folder / name) for name in ("tokenizer", "tokenizer_2")]
    torch.manual_seed(0)
    config = CLIPTextConfig(**_TEXT, vocab_size=49408, projection_dim=WIDTH, bos_token_id=0, eos_token_id=2)
    first = CLIPTextModel(config).eval()
    xl = base == "sdxl"
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(32, 64), layers_per_block=1, norm_num_groups=32,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=2, cross_attention_dim=WIDTH * (1 + xl), use_linear_projection=xl,
        **({"addition_embed_type": "text_time", "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 256 * 6 + WIDTH, "transformer_layers_per_block": 2} if xl else {}),
    ).eval()  # fmt: skip
    listen(unet)
    parts = {"vae": _vae(), "text_encoder": first, "tokenizer": tokenizers[0], "unet": unet,
             "scheduler": EulerDiscreteScheduler(**_NOISE, timestep_spacing="leading")}  # fmt: skip
    if not xl:
        return StableDiffusionPipeline(
            **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    second = CLIPTextModelWithProjection(config).eval()
    return StableDiffusionXLPipeline(**parts, text_encoder_2=second, tokenizer_2=tokenizers[1], add_watermarker=False)


def listen(unet: Any) -> None:
    """Random networks hardly listen to the text: raise its voice."""
    for name, parameter in unet.named_parameters():
        if "attn2.to_k" in name or "attn2.to_v" in name:
            parameter.data *= 10


def _vae() -> Any:
    from diffusers import AutoencoderTiny

    return AutoencoderTiny(
        latent_channels=4, encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4,
        num_encoder_blocks=(1, 1, 1, 1), num_decoder_blocks=(1, 1, 1, 1),
    )  # fmt: skip


def _adapter(base: str, pipeline: Any, *, official: bool = False) -> IdentityAdapter:
    """With effect, of the embedded adapter's sizes, but for this base."""
    aligned = Quirks(text_layer=-2 if base == "sdxl" else -1)
    made = AdapterConfig.preset(
        "embedded", text_dim=pipeline.unet.config.cross_attention_dim, projector_width=WIDTH, facial_width=WIDTH,
        facial_depth=1, lora_rank=4, merge_fraction=0.5,
        quirks={"sd15": OFFICIAL_SD15, "sdxl": OFFICIAL_SDXL}[base] if official else aligned,
    )  # fmt: skip
    adapter = IdentityAdapter.new(made.model_copy(update={"base": base}), pipeline.unet, seed=1)
    generator = torch.Generator().manual_seed(2)
    adapter.load_state({
        key: torch.randn(value.shape, generator=generator) * 0.3 if "lora.up" in key else value.clone()
        for key, value in adapter.state().items()
    })  # fmt: skip
    return adapter


def _model(base: str, unet: Any) -> Any:
    """ComfyUI's MODEL; it tells the sizes from the weights itself, only the number of heads is ours."""
    kind = comfy.supported_models.SDXL if base == "sdxl" else comfy.supported_models.SD15
    state = {ldm.unet_key(key, unet): value.detach().clone() for key, value in unet.state_dict().items()}
    config = type("Tiny", (kind,), {"unet_extra_config": {"num_heads": 2, "num_head_channels": -1}})(
        {**comfy.model_detection.detect_unet_config(state, ""), "dtype": torch.float32}
    )
    model = config.get_model(state, "", device="cpu")
    model.load_model_weights(dict(state), "")
    missing = model.diffusion_model.load_state_dict(state, strict=False)
    assert not missing.missing_keys
    assert not missing.unexpected_keys
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model.eval(), load_device=cpu, offload_device=cpu)


class _SD(comfy.sd1_clip.SD1ClipModel):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options, textmodel_json_config={**_TEXT, "eos_token_id": 49407}, clip_model=_Last)


class _Last(comfy.sd1_clip.SDClipModel):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options, return_projected_pooled=False)


class _XL(comfy.sdxl_clip.SDXLClipModel):
    def __init__(self, **options: Any) -> None:
        torch.nn.Module.__init__(self)
        made = {"layer": "hidden", "layer_idx": -2, "layer_norm_hidden_state": False, **options}
        special = {"start": 49406, "end": 49407, "pad": 0}
        self.clip_l = comfy.sd1_clip.SDClipModel(**made, textmodel_json_config={**_TEXT, "eos_token_id": 49407})
        self.clip_g = comfy.sd1_clip.SDClipModel(
            **made, textmodel_json_config={**_TEXT, "eos_token_id": 49407}, special_tokens=special
        )
        self.dtypes = {options["dtype"]}


def _clip(base: str, pipeline: Any) -> Any:
    """ComfyUI's CLIP."""
    xl = base == "sdxl"
    tokenizer = comfy.sdxl_clip.SDXLTokenizer if xl else comfy.sd1_clip.SD1Tokenizer
    target = comfy.supported_models_base.ClipTarget(tokenizer, _XL if xl else _SD)
    clip = comfy.sd.CLIP(target, model_options={"dtype": torch.float32})  # it would round them to 16 bits
    _fill(clip.cond_stage_model.clip_l, pipeline.text_encoder)
    if xl:
        _fill(clip.cond_stage_model.clip_g, pipeline.text_encoder_2)
    return clip


def _fill(encoder: Any, source: Any) -> None:
    state = {_prefixed(key): value for key, value in source.state_dict().items()}
    found = encoder.transformer.load_state_dict(state, strict=False)
    assert set(found.missing_keys) <= {"text_projection.weight"}, found
    assert not found.unexpected_keys


def _prefixed(key: str) -> str:
    """The original name of a text encoder's weight: newer transformers leave out where it lies."""
    return key if key.startswith(("text_model.", "text_projection.")) else f"text_model.{key}"


def slim_sd15(folder: Path) -> tuple[Any, IdentityAdapter]:
    """Write what a ComfyUI needs below its folder; gives the same weights as a pipeline, and the adapter.

    ComfyUI rounds the weights of text encoders to 16 bits on a CPU, so these are.
    """
    from diffusers import AutoencoderTiny
    from safetensors.torch import save_file

    write_layout(folder / "layout", {"tokenizer": LAYOUTS["sd15"]["tokenizer"]})
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(320, 320), layers_per_block=1, attention_head_dim=8,
        cross_attention_dim=768, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    ).eval()  # fmt: skip
    listen(unet)
    text = CLIPTextModel(CLIPTextConfig(**LAYOUTS["sd15"]["text_encoder"])).half().float().eval()
    pipeline = StableDiffusionPipeline(
        vae=_with_contrast(AutoencoderTiny()), text_encoder=text,
        tokenizer=CLIPTokenizer.from_pretrained(folder / "layout" / "tokenizer"),
        unet=unet, scheduler=EulerDiscreteScheduler(**_NOISE, timestep_spacing="leading"), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    adapter = _adapter("sd15", pipeline)
    adapter.save_pretrained(folder / "models" / "consistentid" / "mine")
    state = {f"model.diffusion_model.{ldm.unet_key(k, unet)}": v for k, v in unet.state_dict().items()}
    state |= {f"cond_stage_model.transformer.{_prefixed(k)}": v for k, v in text.state_dict().items()}
    state |= {f"first_stage_model.{k}": v for k, v in _taesd(pipeline.vae).items()}
    (folder / "models" / "checkpoints").mkdir()
    save_file({k: v.contiguous() for k, v in state.items()}, folder / "models" / "checkpoints" / "slim.safetensors")
    return pipeline, adapter


@torch.no_grad()
def _with_contrast(vae: Any) -> Any:
    """A random autoencoder whose pictures are neither black nor grey, so that two of them can differ."""
    values = vae.decoder(torch.randn(4, 4, 8, 8) * 3)  # -1..1
    last = vae.decoder.layers[-1]
    gain = 0.4 / values.std((0, 2, 3))
    last.weight *= gain[:, None, None, None]
    last.bias.copy_((last.bias - (values.mean((0, 2, 3)) + 1) / 2) * gain + 0.5)
    return vae.eval()


def _taesd(vae: Any) -> dict[str, torch.Tensor]:
    """The tiny autoencoder under its original names; ComfyUI's latents are scaled, diffusers' are not."""
    state = {"vae_scale": torch.tensor(0.18215), "vae_shift": torch.tensor(0.0)}
    for key, value in vae.state_dict().items():
        part, _, number, rest = key.split(".", 3)
        state[f"taesd_{part}.{int(number) + (part == 'decoder')}.{rest}"] = value
    return state


_HINT = (
    "conv_in",
    *(f"blocks.{number}" for number in range(6)),
    "conv_out",
)  # every second layer of `input_hint_block`


def controlnet(pipeline: Any, model: Any) -> tuple[Any, Any]:
    """A tiny random ControlNet with effect in diffusers' class and in ComfyUI's."""
    import comfy.cldm.cldm
    import comfy.controlnet

    unet = pipeline.unet
    network = tiny.tiny_controlnet(unet)
    state = {}
    for key, value in network.state_dict().items():
        if key.startswith("controlnet_cond_embedding."):
            name, _, parameter = key.removeprefix("controlnet_cond_embedding.").rpartition(".")
            state[f"input_hint_block.{2 * _HINT.index(name)}.{parameter}"] = value
        elif key.startswith("controlnet_down_blocks."):
            _, number, parameter = key.split(".")
            state[f"zero_convs.{number}.0.{parameter}"] = value
        elif key.startswith("controlnet_mid_block."):
            state[f"middle_block_out.0.{key.rpartition('.')[2]}"] = value
        else:
            state[ldm.unet_key(key, unet)] = value
    config = {k: v for k, v in model.model.model_config.unet_config.items() if k != "out_channels"}
    theirs = comfy.cldm.cldm.ControlNet(**config, hint_channels=3).eval()
    theirs.load_state_dict(state)
    return network, comfy.controlnet.ControlNet(theirs, load_device=torch.device("cpu"))
