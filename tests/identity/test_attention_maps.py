"""Recorded attention maps are those of the layer, and gradients reach its projections."""

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor

from consistentid.identity.attention_maps import AttentionRecorder, cross_attention_layers, token_columns


def test_columns_are_the_layers_own_probabilities() -> None:
    torch.manual_seed(0)
    layer = Attention(32, cross_attention_dim=24, heads=4, dim_head=8, processor=AttnProcessor())
    hidden, text = torch.randn(2, 16, 32), torch.randn(2, 11, 24)
    query, key = (layer.head_to_batch_dim(x) for x in (layer.to_q(hidden), layer.to_k(text)))
    expected = layer.get_attention_scores(query, key).view(2, 4, 16, 11)
    positions = torch.tensor([[1, 5], [0, 10]])
    columns = token_columns(layer.to_q(hidden), layer.to_k(text), positions, heads=4, scale=layer.scale)
    for sample in range(2):
        assert torch.allclose(columns[sample], expected[sample][..., positions[sample]], atol=1e-6)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_recorder_leaves_the_output_alone_and_carries_gradients(adapter, unet, batch, checkpointing) -> None:
    if checkpointing:
        unet.enable_gradient_checkpointing()
    unet.train().requires_grad_(False)
    adapter.attach(unet, trainable=True)
    inputs = (batch.latents, batch.timesteps, batch.text)
    added = {"added_cond_kwargs": {"image_embeds": [batch.identity[:, None]]}}
    adapter.set_image_features(batch.image)
    with torch.no_grad():
        before = unet(*inputs, **added).sample
    layers = cross_attention_layers(unet)
    positions = torch.tensor([[3, 7], [2, 5]])
    with AttentionRecorder(unet, layers) as recorder:
        unet(*inputs, **added)
        assert not recorder._kept  # validation in between leaves nothing behind
        with recorder.recording():
            output = unet(*inputs, **added).sample
        assert torch.equal(output, before)
        maps = list(recorder.maps(positions))
        assert len(maps) == len(layers)
        (output.square().mean() + sum(one.mean() for one in maps)).backward()
    loras = adapter.parameters_by_group()["lora"]
    crossing = [index for index, name in enumerate(unet.attn_processors) if "attn2" in name]
    for index in crossing[:1]:
        for name in ("to_q", "to_k"):
            assert loras[f"{index}.{name}_lora.up.weight"].grad.abs().sum() > 0
    assert not unet.get_submodule(layers[0]).to_q._forward_hooks


def test_layers_are_chosen_by_block(unet) -> None:
    every = cross_attention_layers(unet)
    assert {name.split(".attentions")[0] for name in every} == {"down_blocks.1", "mid_block", "up_blocks.0"}
    assert cross_attention_layers(unet, blocks=["mid_block"]) == tuple(name for name in every if "mid" in name)
    assert cross_attention_layers(unet, blocks=["up_blocks", "down_blocks.1"]) == tuple(
        name for name in every if "mid" not in name
    )
