import pytest
import torch
from torch import nn

from consistentid.identity.kept_keys import _remembering, kept_keys_and_values


def given(batch):
    return {"image_embeds": [batch.identity[:, None]]}


def forwards(unet):
    return {name: module.__dict__.get("forward") for name, module in unet.named_modules()}


@pytest.fixture
def products(unet, adapter):
    """Counts the matrix products of the key and value layers, with the adapter attached."""
    adapter.attach(unet, merge_loras=True)
    count = []
    for name, module in unet.named_modules():
        if isinstance(module, nn.Linear) and any(part in name for part in ("attn2.to_k", "attn2.to_v", "_ip.")):
            module.forward = _counting(module.forward, count)
    return count


def _counting(forward, count):
    def counted(x):
        count.append(1)
        return forward(x)

    return counted


def run(unet, batch, steps):
    return [unet(batch.latents, time, text, added_cond_kwargs=given(batch)).sample for text, time in steps]


@torch.no_grad()
def test_bit_equal_with_fewer_products_also_when_the_text_changes(unet, adapter, batch, products):
    merged = batch.text * 0.5
    steps = [(batch.text, 900), (batch.text, 700), (merged, 500), (merged, 300), (batch.text, 100)]
    with adapter.fixed_tokens(adapter.identity_tokens(batch.identity, batch.image)):
        products.clear()
        expected = run(unet, batch, steps)
        before, every = forwards(unet), len(products)
        products.clear()
        with kept_keys_and_values(unet):
            kept = run(unet, batch, steps)
        assert forwards(unet) == before
    assert all(torch.equal(one, other) for one, other in zip(expected, kept, strict=True))
    # Two layers for text and two for identity tokens: two texts and one set of tokens instead of five of each.
    assert len(products) * 10 == every * 3


def test_slices_of_one_tensor_are_known_again():
    seen = []

    def doubled(x):
        seen.append(x)
        return 2 * x

    remembered, tokens = _remembering(doubled), torch.rand(2, 3, 4)
    for _ in range(2):
        for person in range(3):
            assert torch.equal(remembered(tokens[:, person]), 2 * tokens[:, person])
    assert len(seen) == 3
    tokens.mul_(3)
    assert torch.equal(remembered(tokens[:, 1]), 2 * tokens[:, 1])
    for _ in range(40):
        other = torch.rand(2, 4)
        assert torch.equal(remembered(other), 2 * other)


@torch.no_grad()
def test_a_text_that_was_changed_in_place_counts_as_another(unet, adapter, batch, products):
    with adapter.fixed_tokens(adapter.identity_tokens(batch.identity, batch.image)), kept_keys_and_values(unet):
        first = run(unet, batch, [(batch.text, 500)])[0]
        batch.text.mul_(0.5)
        second = run(unet, batch, [(batch.text, 500)])[0]
    assert not torch.equal(first, second)


def test_layers_forget_and_hooks_stay(unet, adapter):
    adapter.attach(unet, merge_loras=True)
    layer = next(module for name, module in unet.named_modules() if name.endswith("attn2.to_k"))
    layer.forward = hook = _counting(layer.forward, [])  # as accelerate's offloading does
    kept = kept_keys_and_values(unet)
    kept.__enter__()
    assert layer.forward is not hook
    kept.__exit__(RuntimeError, RuntimeError(), None)
    assert layer.forward is hook
    del layer.forward
    adapter.detach()
    assert all(own is None for own in forwards(unet).values())
