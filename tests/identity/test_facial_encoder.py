import torch

from consistentid.identity.facial_encoder import FacialEncoder


def encoder(config):
    torch.manual_seed(0)
    return FacialEncoder.from_adapter_config(config).eval()


@torch.no_grad()
def test_without_valid_regions_the_text_is_unchanged(config, batch):
    fused = encoder(config)(batch.text, batch.regions, batch.positions, torch.zeros_like(batch.valid))
    assert torch.equal(fused, batch.text)


@torch.no_grad()
def test_invalid_slots_are_ignored(config, batch):
    network = encoder(config)
    fused = network(batch.text, batch.regions, batch.positions, batch.valid)
    batch.regions[1, 3:] = 1e6
    batch.positions[1, 3:] = 8  # also that of a valid slot
    assert torch.equal(network(batch.text, batch.regions, batch.positions, batch.valid), fused)


@torch.no_grad()
def test_batch_of_two_is_two_batches_of_one(config, batch):
    network = encoder(config)
    inputs = (batch.text, batch.regions, batch.positions, batch.valid)
    single = [network(*(tensor[row : row + 1] for tensor in inputs)) for row in range(2)]
    torch.testing.assert_close(network(*inputs), torch.cat(single), rtol=1e-5, atol=1e-6)


def test_save_and_load(config, tmp_path):
    network = encoder(config)
    network.save_pretrained(tmp_path)
    loaded = FacialEncoder.from_pretrained(tmp_path)
    state = loaded.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
