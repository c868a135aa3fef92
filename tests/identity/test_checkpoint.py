import pytest
import torch

from consistentid.errors import WeightsNotFound
from consistentid.identity import checkpoint
from consistentid.identity.adapter import IdentityAdapter
from consistentid.identity.checkpoint import load_adapter, official_ip_adapter_shapes, read_official, write_official
from consistentid.identity.config import AdapterConfig
from consistentid.identity.facial_encoder import FacialEncoder
from consistentid.identity.layout import ip_adapter_shapes, projector_shapes

UNETS = {
    "sd15": {"cross_attention_dim": 768, "attention_head_dim": 8},
    "sdxl": {
        "block_out_channels": (320, 640, 1280), "cross_attention_dim": 2048, "attention_head_dim": (5, 10, 20),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10), "use_linear_projection": True,
    },
}  # fmt: skip


@pytest.mark.parity
@pytest.mark.parametrize("base", ["sd15", "sdxl"])
def test_full_size_layouts_are_the_released_ones(parity, base):
    from diffusers import UNet2DConditionModel

    manifest = parity.MANIFEST[base]
    expected = {
        part: {key: tuple(shape) for key, shape in manifest[part].items()}
        for part in ("image_proj", "FacialEncoder", "adapter_modules")
    }
    config = AdapterConfig.preset(base)
    assert official_ip_adapter_shapes(base) == expected["adapter_modules"]
    assert projector_shapes(config) == expected["image_proj"]
    with torch.device("meta"):
        encoder, unet = FacialEncoder.from_adapter_config(config), UNet2DConditionModel(**UNETS[base])
    assert {key: tuple(value.shape) for key, value in encoder.state_dict().items()} == expected["FacialEncoder"]
    assert ip_adapter_shapes(unet, config.lora_rank) == expected["adapter_modules"]
    assert list(unet.attn_processors) == manifest["attention_processor_order"]


@pytest.fixture
def small(unet, config, monkeypatch):
    """Reads and writes checkpoints of the tiny U-Net's size under the released part names."""
    config = config.model_copy(update={"base": "sd15", "mode": "official"})
    monkeypatch.setattr(checkpoint, "official_ip_adapter_shapes", lambda base, rank=4: ip_adapter_shapes(unet, rank))
    monkeypatch.setattr(AdapterConfig, "preset", classmethod(lambda cls, base, **changes: config))
    return IdentityAdapter.new(config, unet, seed=5)


def test_pickle_and_safetensors_round_trip(small, tmp_path):
    nested = checkpoint.official_state(small)
    assert list(nested) == ["image_proj", "FacialEncoder", "adapter_modules"]
    torch.save(nested, tmp_path / "weights.bin")
    write_official(small, tmp_path / "weights.safetensors")
    for name in ("weights.bin", "weights.safetensors"):
        state = read_official(tmp_path / name, base="sd15").state()
        assert set(state) == set(small.state())
        assert all(torch.equal(state[key], value) for key, value in small.state().items())


def test_a_file_or_a_folder_is_loaded(small, tmp_path):
    write_official(small, tmp_path / "weights.safetensors")
    small.save_pretrained(tmp_path / "adapter")
    for source in ("weights.safetensors", "adapter"):
        state = load_adapter(tmp_path / source).state()
        assert all(torch.equal(state[key], value) for key, value in small.state().items())
    torch.save({"something": torch.zeros(1)}, tmp_path / "other.bin")
    with pytest.raises(WeightsNotFound, match="no released checkpoint"):
        load_adapter(tmp_path / "other.bin")


def test_wrong_files_are_refused_by_name(small, tmp_path):
    path = tmp_path / "weights.bin"
    with pytest.raises(WeightsNotFound, match="does not exist"):
        read_official(path, base="sd15")
    path.write_bytes(b"no checkpoint")
    with pytest.raises(WeightsNotFound, match="no checkpoint of tensors"):
        read_official(path, base="sd15")
    torch.save({"unet": {}}, path)
    with pytest.raises(WeightsNotFound, match="missing image_proj, FacialEncoder, adapter_modules; unknown 'unet'"):
        read_official(path, base="sd15")
    nested = checkpoint.official_state(small)
    nested["adapter_modules"] = dict(nested["adapter_modules"])
    del nested["adapter_modules"]["1.to_k_ip.weight"]
    nested["adapter_modules"]["99.extra"] = torch.zeros(1)
    nested["adapter_modules"]["0.to_q_lora.up.weight"] = torch.zeros(2, 2)
    torch.save(nested, path)
    with pytest.raises(WeightsNotFound) as refusal:
        read_official(path, base="sd15")
    for part in ("missing 1.to_k_ip.weight", "unknown 99.extra", "0.to_q_lora.up.weight is (2, 2)"):
        assert part in str(refusal.value)


def test_pickles_with_code_are_refused(small, tmp_path):
    class Code:
        def __reduce__(self):
            return (print, ("executed",))

    torch.save({"image_proj": Code()}, tmp_path / "weights.bin")
    with pytest.raises(WeightsNotFound, match="holds code, which was not run"):
        read_official(tmp_path / "weights.bin", base="sd15")


def test_bytes_that_look_like_a_pickle_are_one_sentence(tmp_path):
    path = tmp_path / "weights.bin"
    for content in (b"h\x00 is an opcode", b"0", b"\x80\x02}q\x00(X\x05"):
        path.write_bytes(content)
        with pytest.raises(WeightsNotFound, match="no checkpoint of tensors"):
            read_official(path, base="sd15")


def test_other_values_among_the_tensors_are_named(small, tmp_path):
    nested = checkpoint.official_state(small)
    nested["image_proj"] = {**nested["image_proj"], "step": 3}
    torch.save(nested, tmp_path / "weights.bin")
    with pytest.raises(WeightsNotFound, match=r"unknown 'image_proj\.step'"):
        read_official(tmp_path / "weights.bin", base="sd15")
