"""A tiny random model folder of the embedded model's classes, shared by the tests of generation and of the CLI."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderTiny,
    ControlNetModel,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    SegformerConfig,
    SegformerForSemanticSegmentation,
)

from consistentid.faces.regions import LABEL_NAMES
from consistentid.identity.adapter import IdentityAdapter
from consistentid.identity.config import AdapterConfig

WIDTH = 64
SIZE = 64  # px
_PICTURE = Image.effect_noise((SIZE, SIZE), 80).convert("RGB")
TASKS: dict[str, dict[str, Any]] = {  # and their inputs
    "text-to-image": {},
    "img2img": {"image": _PICTURE, "strength": 0.8},
    "inpaint": {"image": _PICTURE, "mask_image": _PICTURE.convert("L")},
    "controlnet": {"image": _PICTURE},
}


def tiny_tokenizer(folder: Path) -> CLIPTokenizer:
    """Letters only: any text can be encoded, words of the caption take several tokens."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    words = ["face", "ears", "eyes", "nose", "mouth", "person", "portrait"]
    merges: list[tuple[str, str]] = []
    for word in words:
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            if (pieces[0], pieces[1]) not in merges:
                merges.append((pieces[0], pieces[1]))
            pieces = [pieces[0] + pieces[1], *pieces[2:]]
    tokens = dict.fromkeys(
        ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
        + ["".join(pair) for pair in merges]
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    return CLIPTokenizer(
        vocab=str(folder / "vocab.json"),
        merges=str(folder / "merges.txt"),
        model_max_length=77,
        bos_token="<|startoftext|>",
        eos_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        pad_token="<|endoftext|>",
    )


def tiny_pipeline(folder: Path) -> StableDiffusionPipeline:
    tokenizer = tiny_tokenizer(folder / "vocabulary")
    torch.manual_seed(0)
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=WIDTH, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=77, bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=SIZE // 8, in_channels=4, out_channels=4, block_out_channels=(32, 64), layers_per_block=1,
        norm_num_groups=8, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=WIDTH, attention_head_dim=2,
    )  # fmt: skip
    vae = AutoencoderTiny(
        latent_channels=4, encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4,
        num_encoder_blocks=(1, 1, 1, 1), num_decoder_blocks=(1, 1, 1, 1),
    )  # fmt: skip
    scheduler = DDIMScheduler(
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        steps_offset=1,
    )
    return StableDiffusionPipeline(
        vae=vae, text_encoder=text_encoder.eval(), tokenizer=tokenizer, unet=unet.eval(), scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def tiny_adapter(pipeline: Any) -> IdentityAdapter:
    """An adapter with effect: the LoRAs of a fresh one have none."""
    config = AdapterConfig.preset(
        "embedded", text_dim=WIDTH, projector_width=WIDTH, facial_width=WIDTH, facial_depth=1, lora_rank=4,
        merge_fraction=0.5,
    )  # fmt: skip
    adapter = IdentityAdapter.new(config, pipeline.unet, seed=1)
    generator = torch.Generator().manual_seed(2)
    state = adapter.state()
    adapter.load_state(
        {
            key: torch.randn(value.shape, generator=generator) * 0.3 if "lora.up" in key else value.clone()
            for key, value in state.items()
        }
    )
    return adapter


def tiny_controlnet(unet: Any) -> ControlNetModel:
    """A ControlNet with the layout of a U-Net, which may carry an adapter, and with effect: a fresh one has none."""
    config = {key: value for key, value in unet.config.items() if not key.startswith(("encoder_hid", "time_cond"))}
    torch.manual_seed(0)
    network = ControlNetModel.from_unet(UNet2DConditionModel.from_config(config)).eval()
    for layer in (*network.controlnet_down_blocks, network.controlnet_mid_block):
        torch.nn.init.normal_(layer.weight, std=0.1)
    return network


def tiny_parser(seed: int = 3) -> SegformerForSemanticSegmentation:
    """Random, but with every class somewhere."""
    torch.manual_seed(seed)
    model = SegformerForSemanticSegmentation(
        SegformerConfig(
            num_encoder_blocks=2, depths=[1, 1], sr_ratios=[4, 2], hidden_sizes=[16, 16], patch_sizes=[7, 3],
            strides=[4, 2], num_attention_heads=[1, 1], mlp_ratios=[1, 1], decoder_hidden_size=16,
            id2label=dict(enumerate(LABEL_NAMES)), label2id={name: k for k, name in enumerate(LABEL_NAMES)},
        )
    )  # fmt: skip
    torch.nn.init.normal_(model.decode_head.classifier.weight)
    return model


def save_tiny_model(folder: Path) -> Path:
    """Write the whole folder, as the package has it."""
    pipeline = tiny_pipeline(folder)
    pipeline.save_pretrained(folder)
    tiny_adapter(pipeline).save_pretrained(folder / "adapter")
    tiny_parser().save_pretrained(folder / "parser")
    return folder


def tiny_sdxl(base: Any) -> tuple[StableDiffusionXLPipeline, IdentityAdapter]:
    """A tiny random SDXL around the parts of a tiny pipeline, and an adapter for it."""
    torch.manual_seed(5)
    text = {**base.text_encoder.config.to_dict(), "projection_dim": 32}
    second = CLIPTextModelWithProjection(CLIPTextConfig(**text)).eval()
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(32, 64), layers_per_block=1,
        norm_num_groups=8, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=128, attention_head_dim=2,
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=8 * 6 + 32,
        use_linear_projection=True, transformer_layers_per_block=(1, 1),
    ).eval()  # fmt: skip
    pipeline = StableDiffusionXLPipeline(
        vae=base.vae, text_encoder=base.text_encoder, text_encoder_2=second, tokenizer=base.tokenizer,
        tokenizer_2=base.tokenizer, unet=unet, scheduler=base.scheduler, add_watermarker=False,
    )  # fmt: skip
    embedded = AdapterConfig.preset("embedded", text_dim=128, projector_width=64, facial_width=64, facial_depth=1)
    config = AdapterConfig.model_validate(
        {**embedded.model_dump(), "base": "sdxl", "lora_rank": 4, "quirks": {"text_layer": -2}}
    )
    return pipeline, IdentityAdapter.new(config, unet, seed=1)
