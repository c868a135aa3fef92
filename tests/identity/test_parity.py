"""Numbers of the released code, frozen (tests/fixtures/parity)."""

import numpy as np
import pytest
import torch

from consistentid.identity.adapter import IdentityAdapter
from consistentid.identity.config import AdapterConfig
from consistentid.identity.facial_encoder import FacialEncoder
from consistentid.identity.layout import ip_adapter_shapes

pytestmark = pytest.mark.parity
ROWS = [0, 4, 5, 8, 9, 12, 14, 20, 31, 76]
LARGE = pytest.param("sdxl", marks=pytest.mark.slow)


def encoder_of(parity, base):
    with torch.device("meta"):
        encoder = FacialEncoder.from_adapter_config(AdapterConfig.preset(base))
    weights = parity.checkpoint_part("facial_encoder.", parity.MANIFEST[base]["FacialEncoder"])
    encoder.load_state_dict(weights, strict=True, assign=True)
    return encoder.eval()


@pytest.mark.parametrize("base", ["sd15", LARGE])
@torch.no_grad()
def test_facial_encoder(parity, base):
    encoder = encoder_of(parity, base)
    text = torch.from_numpy(parity.array("in.prompt", (2, 77, encoder.config.text_dim)))
    regions = torch.from_numpy(parity.array("in.regions", (2, 5, 257, 1280)))
    positions = torch.tensor([[5, 9, 14, 20, 31], [4, 8, 12, 0, 0]])
    valid = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    fused = encoder(text, regions, positions, valid)
    np.testing.assert_allclose(fused[:, ROWS], parity.NUMBERS[f"facial_encoder.{base}"], atol=1e-5)
    untouched = [row for row in range(77) if row not in {5, 9, 14, 20, 31}]
    assert torch.equal(fused[0, untouched], text[0, untouched])


@pytest.mark.parametrize("base", ["sd15", LARGE])
@torch.no_grad()
def test_projector(parity, base):
    from diffusers import UNet2DConditionModel

    weights = parity.checkpoint_part("image_proj.", parity.MANIFEST[base]["image_proj"])
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=AdapterConfig.preset(base).text_dim)
    projector = unet._convert_ip_adapter_image_proj_to_diffusers(weights, low_cpu_mem_usage=False)
    identity = torch.from_numpy(parity.array("in.id", (2, 512)))
    projector.clip_embeds = torch.from_numpy(parity.array("in.clip", (2, 257, 1280)))[:, None]
    for name, projector.shortcut in (("plain", False), ("shortcut", True)):
        tokens = projector(identity / identity.norm(dim=1, keepdim=True))
        np.testing.assert_allclose(tokens, parity.NUMBERS[f"image_proj.{base}.{name}"], atol=1e-5)


@torch.no_grad()
def test_attention_of_an_attached_unet(parity):
    """Self- and decoupled cross-attention, by an adapter on a U-Net with one transformer of width 320."""
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel(
        block_out_channels=(320,), layers_per_block=1, down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("UpBlock2D",), mid_block_type=None, cross_attention_dim=768, attention_head_dim=8,
    ).eval()  # fmt: skip
    config = AdapterConfig.preset("sd15", projector_width=64, facial_width=64, facial_depth=1)
    block = unet.down_blocks[0].attentions[0].transformer_blocks[0]
    for name in ("attn1", "attn2"):
        attention = getattr(block, name)
        state = {key: parity.weight(f"{name}.{key}", value.shape) for key, value in attention.state_dict().items()}
        attention.load_state_dict(state)
    adapter = IdentityAdapter.new(config, unet)
    shapes = ip_adapter_shapes(unet, config.lora_rank)
    ours = {
        f"ip_adapter.{key}": parity.weight(f"attn{int(key[0]) + 1}.processor.{key[2:]}", shape)
        for key, shape in shapes.items()
    }
    adapter.load_state(adapter.state() | ours)
    adapter.attach(unet)
    adapter.set_scale(0.8)
    hidden = torch.from_numpy(parity.array("in.hidden", (2, 64, 320)))
    context = torch.from_numpy(parity.array("in.context", (2, 81, 768)))
    np.testing.assert_allclose(block.attn1(hidden), parity.NUMBERS["attn.self"], atol=1e-5)
    given = (context[:, :-4], [context[:, None, -4:]])
    cross = block.attn2(hidden, encoder_hidden_states=(given[0], [given[1][0][:, 0]]))
    np.testing.assert_allclose(cross, parity.NUMBERS["attn.cross.scale0.8"], atol=1e-5)


@pytest.mark.parametrize(
    ("base", "name", "prompt", "merge_step"),
    [
        ("sd15", "template", "A man, in a forest, adventuring, cinematic photo", 2),
        pytest.param("sd15", "early", "A woman wearing a santa hat", 0, marks=pytest.mark.slow),
        pytest.param("sdxl", "template", "A man, in a forest, adventuring, cinematic photo", 2, marks=pytest.mark.slow),
    ],
)
def test_whole_generation(parity, base, name, prompt, merge_step):
    """Photo, label map and identity embedding -> final latents, on the stock pipeline."""
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

    from consistentid.faces.analysis import FaceAnalysis
    from consistentid.identity.conditioner import Conditioner
    from consistentid.identity.image_encoder import ClipImageEncoder
    from consistentid.prompting.style import style_named

    parts = parity.tiny_parts(str(parity.FOLDER / "tokenizer"), sdxl=base == "sdxl")
    image_encoder = ClipImageEncoder(parts.pop("image_encoder"))
    config = AdapterConfig.preset(base)
    adapter = IdentityAdapter(
        config,
        facial_encoder=encoder_of(parity, base),
        image_proj=parity.checkpoint_part("image_proj.", parity.MANIFEST[base]["image_proj"]),
        ip_adapter=parity.checkpoint_part("adapter_modules.", ip_adapter_shapes(parts["unet"], config.lora_rank)),
    )
    extra = {"add_watermarker": False} if base == "sdxl" else {"safety_checker": None, "feature_extractor": None}
    pipeline = {"sd15": StableDiffusionPipeline, "sdxl": StableDiffusionXLPipeline}[base](**parts, **extra)
    pipeline.set_progress_bar_config(disable=True)
    photo, labels, identity = parity.face_inputs(512)
    if base == "sdxl":
        labels = parity.face_inputs(config.quirks.parser_size)[1]
    words = style_named(config.quirks.prompt_style).template
    analysis = FaceAnalysis.from_parts(photo, labels, identity, description=words)
    adapter.attach(pipeline)
    given = Conditioner.from_pipeline(pipeline, adapter, image_encoder=image_encoder).condition(
        analysis, prompt, negative_prompt="monochrome, lowres, bad anatomy"
    )
    merged = {"prompt_embeds": given.merged_embeds(guidance=True)}
    if base == "sdxl":
        merged["add_text_embeds"] = given.merged_pooled(guidance=True)
        extra = {
            "pooled_prompt_embeds": given.text_only_pooled,
            "negative_pooled_prompt_embeds": given.negative_pooled,
        }
    adapter.set_image_features(given.clip_embeds(guidance=True))
    latents = pipeline(
        prompt_embeds=given.text_only_embeds,
        negative_prompt_embeds=given.negative_text_only_embeds,
        ip_adapter_image_embeds=[given.image_embeds(guidance=True)],
        latents=torch.from_numpy(parity.array("latents", (1, 4, 16, 16))),
        height=128,
        width=128,
        num_inference_steps=6,
        guidance_scale=5.0,
        callback_on_step_end=lambda _p, step, _t, kept: kept | (merged if step == merge_step else {}),
        callback_on_step_end_tensor_inputs=list(merged),
        output_type="latent",
        **(extra if base == "sdxl" else {}),
    ).images
    expected = np.load(parity.FOLDER / f"e2e_{base}.npz")[name]
    np.testing.assert_allclose(latents.numpy(), expected, atol=3e-4)  # values up to 38
