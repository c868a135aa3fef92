"""Released layouts in base models of the real size: on the meta device by default, with memory behind them if slow."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from consistentid.errors import ConsistentIDError
from consistentid.identity.adapter import IdentityAdapter
from consistentid.identity.checkpoint import official_shapes, read_official
from consistentid.identity.config import AdapterConfig


def _full_size() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "full_size.py"
    spec = importlib.util.spec_from_file_location("full_size", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FULL_SIZE = _full_size()
OURS = {"image_proj": "image_proj", "FacialEncoder": "facial_encoder", "adapter_modules": "ip_adapter"}


def meta_adapter(parity: ModuleType, base: str) -> IdentityAdapter:
    """From a state dict with the names and shapes of the released file."""
    manifest = parity.MANIFEST[base]
    state = {
        f"{OURS[part]}.{key}": torch.empty(shape, device="meta")
        for part in OURS
        for key, shape in manifest[part].items()
    }
    return IdentityAdapter.from_state(AdapterConfig.preset(base), state, source="released")


def meta_unet(base: str) -> torch.nn.Module:
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        return UNet2DConditionModel(**FULL_SIZE.UNETS[base])


@pytest.mark.parametrize("base", ["sd15", "sdxl"])
def test_every_released_tensor_finds_its_place(parity, base):
    adapter, unet = meta_adapter(parity, base), meta_unet(base)
    before = {key: value.shape for key, value in unet.state_dict().items()}
    with torch.device("meta"):  # for the layers that attaching makes
        adapter.attach(unet)
    groups = adapter.parameters_by_group()
    live = {key: tuple(value.shape) for group in ("kv", "lora") for key, value in groups[group].items()}
    assert live == {key: tuple(shape) for key, shape in parity.MANIFEST[base]["adapter_modules"].items()}
    adapter.detach()
    assert {key: value.shape for key, value in unet.state_dict().items()} == before


def test_the_other_base_is_refused_and_left_alone(parity):
    for mine, other in (("sd15", "sdxl"), ("sdxl", "sd15")):
        adapter, unet = meta_adapter(parity, mine), meta_unet(other)
        processors = dict(unet.attn_processors)
        with pytest.raises(ConsistentIDError, match="use the base model that the adapter was trained for"):
            adapter.attach(unet)
        assert unet.attn_processors == processors
        assert not adapter.is_attached


@pytest.mark.slow
@pytest.mark.parametrize(
    ("base", "dtype"), [("sd15", torch.float32), ("sdxl", torch.bfloat16)], ids=["sd15-float32", "sdxl-bfloat16"]
)
@torch.no_grad()
def test_one_step_of_the_real_size(tmp_path, base, dtype):
    """SD 1.5: about 6 GB. SDXL in bfloat16: about 11 GB."""
    parts = FULL_SIZE.released_state(official_shapes(base), dtype)
    torch.save(parts, tmp_path / "released.bin")
    del parts
    adapter = read_official(tmp_path / "released.bin", base=base, dtype=dtype)
    unet = FULL_SIZE.unet(base, dtype)
    text_dim = adapter.config.text_dim
    generator = torch.Generator().manual_seed(0)
    given = {
        "sample": torch.randn(1, 4, 8, 8, generator=generator).to(dtype),
        "timestep": 500,
        "encoder_hidden_states": torch.randn(1, 77, text_dim, generator=generator).to(dtype),
        "added_cond_kwargs": {"text_embeds": torch.zeros(1, 1280, dtype=dtype), "time_ids": torch.zeros(1, 6)},
    }
    plain = unet(**given).sample
    adapter.attach(unet)
    given["added_cond_kwargs"]["image_embeds"] = [torch.zeros(1, 1, 1, dtype=dtype)]
    tokens = adapter.identity_tokens(torch.ones(1, 512, dtype=dtype), torch.ones(1, 257, 1280, dtype=dtype))
    assert tokens.shape == (1, 4, text_dim)
    with adapter.fixed_tokens(tokens):
        portrait = unet(**given).sample
    assert portrait.isfinite().all()
    assert not torch.equal(portrait, plain)
    adapter.detach()
    del given["added_cond_kwargs"]["image_embeds"]
    assert torch.equal(unet(**given).sample, plain)
