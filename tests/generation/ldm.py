"""Diffusers' names of weights -> those of the original layout, in which single files are shared; for tests."""

import re
from typing import Any

import torch

State = dict[str, torch.Tensor]

_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection",
}  # fmt: skip
_ENDS = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2", "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0", "conv_out": "out.2", "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}  # fmt: skip
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def single_file(pipeline: Any) -> State:
    """All weights of a stock SD 1.5 or SDXL pipeline as one file has them."""
    is_xl = getattr(pipeline, "text_encoder_2", None) is not None
    first = "conditioner.embedders.0.transformer.text_model." if is_xl else "cond_stage_model.transformer.text_model."
    state = {f"model.diffusion_model.{unet_key(key, pipeline.unet)}": value for key, value in _state(pipeline.unet)}
    state |= {f"first_stage_model.{vae_key(key)}": _as_conv(key, value) for key, value in _state(pipeline.vae)}
    state |= {first + key.removeprefix("text_model."): value for key, value in _state(pipeline.text_encoder)}
    if is_xl:
        state |= {f"conditioner.embedders.1.model.{k}": v for k, v in open_clip(pipeline.text_encoder_2).items()}
    return {key: value.contiguous().clone() for key, value in state.items()}


def unet_key(key: str, unet: Any) -> str:
    name, _, parameter = key.rpartition(".")
    if name in _ENDS:
        return f"{_ENDS[name]}.{parameter}"
    layers, last = unet.config.layers_per_block, len(unet.config.block_out_channels) - 1

    def resnet(text: str) -> str:
        return f"{_RESNET[text.rpartition('.')[0]]}.{parameter}"

    if found := re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.+)", key):
        way, block, kind, index, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
        place = block * (layers + 1) + index + (way == "down")
        inner = f"0.{resnet(rest)}" if kind == "resnets" else f"1.{rest}"
        return f"{'input' if way == 'down' else 'output'}_blocks.{place}.{inner}"
    if found := re.match(r"down_blocks\.(\d+)\.downsamplers\.0\.conv\.(.+)", key):
        return f"input_blocks.{(int(found[1]) + 1) * (layers + 1)}.0.op.{found[2]}"
    if found := re.match(r"up_blocks\.(\d+)\.upsamplers\.0\.(.+)", key):
        block = int(found[1])
        has_attention = "CrossAttn" in unet.config.up_block_types[block]
        assert block < last
        return f"output_blocks.{block * (layers + 1) + layers}.{2 if has_attention else 1}.{found[2]}"
    found = re.match(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)", key)
    assert found, key
    return (
        f"middle_block.{2 * int(found[2])}.{resnet(found[3])}"
        if found[1] == "resnets"
        else f"middle_block.1.{found[3]}"
    )


def vae_key(key: str) -> str:
    key = key.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
    key = re.sub(r"encoder\.down_blocks\.(\d+)\.resnets\.", r"encoder.down.\1.block.", key)
    key = re.sub(r"encoder\.down_blocks\.(\d+)\.downsamplers\.0\.", r"encoder.down.\1.downsample.", key)
    key = re.sub(r"decoder\.up_blocks\.(\d+)\.resnets\.", lambda m: f"decoder.up.{3 - int(m[1])}.block.", key)
    key = re.sub(r"decoder\.up_blocks\.(\d+)\.upsamplers\.0\.", lambda m: f"decoder.up.{3 - int(m[1])}.upsample.", key)
    key = re.sub(r"mid_block\.resnets\.(\d+)\.", lambda m: f"mid.block_{int(m[1]) + 1}.", key)
    if found := re.match(r"(\w+)\.mid_block\.attentions\.0\.(.+)\.(weight|bias)", key):
        key = f"{found[1]}.mid.attn_1.{_VAE_ATTENTION[found[2]]}.{found[3]}"
    return key


def open_clip(encoder: Any) -> State:
    state: State = {}
    parts = {key.removeprefix("text_model."): value for key, value in _state(encoder)}
    for key, value in parts.items():
        if found := re.match(r"encoder\.layers\.(\d+)\.self_attn\.q_proj\.(weight|bias)", key):
            three = [parts[key.replace("q_proj", f"{letter}_proj")] for letter in "qkv"]
            state[f"transformer.resblocks.{found[1]}.attn.in_proj_{found[2]}"] = torch.cat(three)
        elif key == "text_projection.weight":
            state["text_projection"] = value.T
        elif not re.search(r"[kv]_proj\.", key):
            name = key.replace("encoder.layers.", "transformer.resblocks.").replace("self_attn", "attn")
            name = name.replace("layer_norm1", "ln_1").replace("layer_norm2", "ln_2").replace(".fc1.", ".c_fc.")
            name = name.replace(".fc2.", ".c_proj.").replace("final_layer_norm", "ln_final")
            name = name.replace("embeddings.token_embedding", "token_embedding")
            state["positional_embedding" if "position_embedding" in name else name] = value
    return state


def _state(module: Any) -> list[tuple[str, torch.Tensor]]:
    return [(key, value) for key, value in module.state_dict().items() if not key.endswith("position_ids")]


def _as_conv(key: str, value: torch.Tensor) -> torch.Tensor:
    """The original autoencoder's attention is made of 1 x 1 convolutions."""
    return value[:, :, None, None] if "attentions" in key and value.ndim == 2 else value
