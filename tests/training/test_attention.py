"""Recorded attention maps are those of the layer, and gradients reach its projections."""

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor

from consistentid.training.attention import AttentionRecorder, cross_attention_layers, region_columns
from consistentid.training.embedded.models import new_unet


def test_columns_are_the_layers_own_probabilities() -> None:
    torch.manual_seed(0)
    layer = Attention(32, cross_attention_dim=24, heads=4, dim_head=8, processor=AttnProcessor())
    hidden, text = torch.randn(2, 16, 32), torch.randn(2, 11, 24)
    query, key = (layer.head_to_batch_dim(x) for x in (layer.to_q(hidden), layer.to_k(text)))
    expected = layer.get_attention_scores(query, key).view(2, 4, 16, 11)
    positions = torch.tensor([[1, 5], [0, 10]])
    columns = region_columns(layer, hidden, text, positions)
    for sample in range(2):
        assert torch.allclose(columns[sample], expected[sample][..., positions[sample]], atol=1e-6)


def test_recorder_leaves_the_output_alone_and_carries_gradients() -> None:
    torch.manual_seed(0)
    unet = new_unet()
    inputs = (torch.randn(1, 8, 16, 16), torch.tensor([10]), torch.randn(1, 77, 256))
    with torch.no_grad():
        before = unet(*inputs).sample
    layers = cross_attention_layers(unet, largest=8)
    with AttentionRecorder(unet, layers) as recorder:
        unet(*inputs)
        assert not recorder.maps  # validation in between leaves nothing behind
        with recorder.recording(torch.tensor([[3, 7]])):
            output = unet(*inputs).sample
        assert torch.equal(output, before)
        assert len(recorder.maps) == len(layers)
        assert {tuple(maps.shape[2:]) for maps in recorder.maps} == {(64, 2), (16, 2)}
        sum(maps.sum() for maps in recorder.maps).backward()
    layer = unet.get_submodule(layers[0])
    assert layer.to_q.weight.grad.abs().sum() > 0
    assert layer.to_k.weight.grad.abs().sum() > 0
    assert not layer._forward_hooks
