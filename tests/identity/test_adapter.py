import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor, FusedAttnProcessor2_0

from consistentid.errors import InvalidSettings, WeightsNotFound
from consistentid.identity.adapter import GROUPS, IdentityAdapter


def run(unet, batch, *, rows=slice(None), identity=None, image=None, adapter=None):
    conditions = {}
    if adapter is not None:
        adapter.set_image_features((batch.image if image is None else image)[rows])
        identity = batch.identity if identity is None else identity
        conditions = {"added_cond_kwargs": {"image_embeds": [identity[rows][:, None]]}}
    return unet(batch.latents[rows], batch.timesteps[rows], batch.text[rows], **conditions).sample


def snapshot(unet):
    return {
        "state": {key: value.clone() for key, value in unet.state_dict().items()},
        "modules": [(name, type(module)) for name, module in unet.named_modules()],
        "processors": {name: id(processor) for name, processor in unet.attn_processors.items()},
        "gradients": {name: parameter.requires_grad for name, parameter in unet.named_parameters()},
        "config": (dict(unet.config), unet.config.encoder_hid_dim_type),
        "peft": set(getattr(unet, "peft_config", {})),
        "attributes": set(vars(unet)) - {"_hf_peft_config_loaded"},
    }


def assert_same(before, after):
    assert list(before["state"]) == list(after["state"])
    assert all(torch.equal(before["state"][key], after["state"][key]) for key in before["state"])
    assert {key: value for key, value in before.items() if key != "state"} == {
        key: value for key, value in after.items() if key != "state"
    }


@pytest.mark.parametrize("merge_loras", [False, True])
@torch.no_grad()
def test_detach_restores_the_unet_bit_for_bit(unet, adapter, batch, merge_loras):
    before, output = snapshot(unet), run(unet, batch)
    for _ in range(2):
        adapter.attach(unet, merge_loras=merge_loras)
        assert not torch.equal(run(unet, batch, adapter=adapter), output)
        adapter.detach()
        assert torch.equal(run(unet, batch), output)
        assert_same(before, snapshot(unet))


@torch.no_grad()
def test_detach_restores_processors_of_other_kinds(unet, adapter, batch):
    unet.fuse_qkv_projections()
    assert any(isinstance(processor, FusedAttnProcessor2_0) for processor in unet.attn_processors.values())
    before, output = snapshot(unet), run(unet, batch)
    with adapter.attached(unet):
        attached = run(unet, batch, adapter=adapter)
    assert_same(before, snapshot(unet))
    assert torch.equal(run(unet, batch), output)
    unet.unfuse_qkv_projections()
    unet.set_attn_processor(AttnProcessor())
    with adapter.attached(unet):  # LoRAs also act where projections were fused
        torch.testing.assert_close(run(unet, batch, adapter=adapter), attached)
    assert all(isinstance(processor, AttnProcessor) for processor in unet.attn_processors.values())


@torch.no_grad()
def test_detach_leaves_other_loras_alone(unet, adapter, batch):
    from peft import LoraConfig

    unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False), adapter_name="style")
    before, output = snapshot(unet), run(unet, batch)
    adapter.attach(unet)
    both = run(unet, batch, adapter=adapter)
    adapter.set_scale(0)
    assert torch.equal(run(unet, batch, adapter=adapter), output)
    adapter.detach()
    assert_same(before, snapshot(unet))
    assert torch.equal(run(unet, batch), output)
    unet.disable_adapters()
    assert not torch.equal(run(unet, batch), both)


@pytest.mark.parametrize("merge_loras", [False, True])
@torch.no_grad()
def test_scale_zero_is_the_base_model(unet, adapter, batch, merge_loras):
    output = run(unet, batch)
    adapter.attach(unet, merge_loras=merge_loras)
    adapter.set_scale(0)
    assert torch.equal(run(unet, batch, adapter=adapter), output)
    adapter.set_scale(0.5)
    half = run(unet, batch, adapter=adapter)
    adapter.set_scale(1)
    assert not torch.equal(run(unet, batch, adapter=adapter), half)


@torch.no_grad()
def test_merged_loras_compute_the_same(unet, adapter, batch):
    with adapter.attached(unet):
        beside = run(unet, batch, adapter=adapter)
    with adapter.attached(unet, merge_loras=True):
        torch.testing.assert_close(run(unet, batch, adapter=adapter), beside, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_weights_are_held_once_and_keep_their_precision(unet, adapter, dtype):
    before = {key: value.clone() for key, value in adapter.state().items()}
    adapter.attach(unet.to(dtype))
    live = {value.data_ptr() for group in ("kv", "lora") for value in adapter.parameters_by_group()[group].values()}
    held = {value.data_ptr() for key, value in adapter.state().items() if key.startswith("ip_adapter.")}
    assert (held == live) == (dtype == torch.float32)
    unet.to(torch.float16)  # weights of the U-Net are rounded, the adapter's are not
    for attached in (True, False):
        assert adapter.is_attached == attached
        state = adapter.state()
        assert state.keys() == before.keys()
        assert all(torch.equal(state[key], value) for key, value in before.items())
        if attached:
            adapter.detach()


@torch.no_grad()
def test_batch_of_two_is_two_batches_of_one(unet, adapter, batch):
    adapter.attach(unet)
    both = run(unet, batch, adapter=adapter)
    single = torch.cat([run(unet, batch, rows=slice(row, row + 1), adapter=adapter) for row in range(2)])
    torch.testing.assert_close(both, single, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_identity_tokens_are_what_the_unet_uses(unet, adapter, batch, config):
    outside = adapter.identity_tokens(batch.identity, batch.image)
    adapter.attach(unet)
    tokens = adapter.identity_tokens(batch.identity, batch.image)
    assert torch.equal(tokens, outside)
    assert tokens.shape == (2, config.num_identity_tokens, config.text_dim)
    nobody = adapter.identity_tokens(torch.zeros_like(batch.identity), torch.zeros_like(batch.image))
    assert torch.equal(nobody[0], nobody[1])
    assert not torch.equal(tokens[0], nobody[0])


@torch.no_grad()
def test_identity_tokens_outside_of_a_unet_follow_the_weights(adapter, batch):
    before = adapter.identity_tokens(batch.identity, batch.image)
    assert torch.equal(adapter.identity_tokens(batch.identity, batch.image), before)
    adapter.load_state({key: value * 1.5 for key, value in adapter.state().items()})
    assert not torch.equal(adapter.identity_tokens(batch.identity, batch.image), before)


@pytest.mark.parametrize("train_base", [False, True])
def test_gradients_reach_every_group(unet, config, batch, train_base):
    adapter = IdentityAdapter.new(config, unet)
    unet.train().requires_grad_(train_base)
    adapter.attach(unet, trainable=True)
    with torch.autocast("cpu", torch.bfloat16):
        batch.text = adapter.facial_encoder(batch.text, batch.regions, batch.positions, batch.valid)
        run(unet, batch, adapter=adapter).square().mean().backward()
    groups = adapter.parameters_by_group()
    assert tuple(groups) == GROUPS
    for group, parameters in groups.items():
        assert parameters
        missing = [name for name, parameter in parameters.items() if parameter.grad is None]
        assert not missing, group
        if group != "lora":
            assert any(parameter.grad.abs().sum() > 0 for parameter in parameters.values()), group
    ups = [parameter for name, parameter in groups["lora"].items() if name.endswith("up.weight")]
    assert all(parameter.grad.abs().sum() > 0 for parameter in ups)
    assert (unet.conv_in.weight.grad is not None) == train_base


def test_trained_weights_survive_detach_save_and_load(unet, config, batch, tmp_path):
    adapter = IdentityAdapter.new(config, unet)
    fresh = {key: value.clone() for key, value in adapter.state().items()}
    adapter.attach(unet, trainable=True)
    parameters = [one for group in adapter.parameters_by_group().values() for one in group.values()]
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(0.01)
        output = run(unet, batch, adapter=adapter)
    adapter.save_pretrained(tmp_path)
    attached = {key: value.clone() for key, value in adapter.state().items()}
    adapter.detach()
    loaded = IdentityAdapter.from_pretrained(tmp_path)
    assert loaded.config == config
    assert not any(path.name.endswith(".part") for path in tmp_path.iterdir())
    for state in (adapter.state(), loaded.state()):
        assert set(state) == set(attached)
        assert all(torch.equal(state[key], attached[key]) for key in attached)
        assert not any(torch.equal(state[key], fresh[key]) for key in fresh)
    with torch.no_grad(), loaded.attached(unet):
        assert torch.equal(run(unet, batch, adapter=loaded), output)


@torch.no_grad()
def test_load_state_acts_while_attached(unet, adapter, config, batch):
    other = IdentityAdapter.new(config, unet, seed=9)
    with other.attached(unet):
        expected = run(unet, batch, adapter=other)
    for merge_loras in (False, True):
        with adapter.attached(unet, merge_loras=merge_loras):
            adapter.load_state(other.state())
            torch.testing.assert_close(run(unet, batch, adapter=adapter), expected, rtol=1e-4, atol=1e-5)


def test_same_seed_same_weights_and_global_generator_untouched(unet, config):
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    states = [IdentityAdapter.new(config, unet, seed=3).state() for _ in range(2)]
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_half_precision(unet, adapter, batch):
    unet.to(torch.bfloat16)
    adapter.attach(unet)
    for name in ("latents", "text"):
        setattr(batch, name, getattr(batch, name).bfloat16())
    with torch.no_grad():
        assert run(unet, batch, adapter=adapter).dtype == torch.bfloat16
    adapter.detach()
    assert adapter.state()["ip_adapter.1.to_k_ip.weight"].dtype == torch.float32


def test_refusals(unet, adapter, config, tmp_path):
    with pytest.raises(InvalidSettings, match="not attached"):
        adapter.detach()
    adapter.attach(unet)
    with pytest.raises(InvalidSettings, match="attached already"):
        adapter.attach(unet)
    with pytest.raises(InvalidSettings, match="already carries"):
        IdentityAdapter.new(config, unet).attach(unet)
    adapter.detach()
    wide = config.model_copy(update={"text_dim": 128})
    with pytest.raises(InvalidSettings, match="width 64"):
        IdentityAdapter.new(wide, unet)
    with pytest.raises(WeightsNotFound, match=r"config\.json"):
        IdentityAdapter.from_pretrained(tmp_path)
    adapter.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(config.model_copy(update={"facial_depth": 3}).to_json())
    with pytest.raises(WeightsNotFound, match=r"missing visual_projection\.layers\.2"):
        IdentityAdapter.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"base": "embedded", "colour": 1}')
    with pytest.raises(WeightsNotFound, match="no adapter configuration"):
        IdentityAdapter.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(config.to_json())
    (tmp_path / "adapter.safetensors").write_bytes(b"no weights")
    with pytest.raises(WeightsNotFound, match=r"adapter\.safetensors is no safetensors file"):
        IdentityAdapter.from_pretrained(tmp_path)
    (tmp_path / "adapter.safetensors").unlink()
    with pytest.raises(WeightsNotFound, match="does not exist"):
        IdentityAdapter.from_pretrained(tmp_path)
