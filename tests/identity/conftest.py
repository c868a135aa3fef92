"""Tiny real classes and the parity inputs."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

PARITY = Path(__file__).parents[1] / "fixtures" / "parity"


@pytest.fixture(scope="session")
def parity() -> ModuleType:
    """The functions that rebuild weights and inputs, with the frozen numbers' folder."""
    spec = importlib.util.spec_from_file_location("parity_fixtures", PARITY / "fixtures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.FOLDER = PARITY
    module.MANIFEST = json.loads((PARITY / "official_checkpoints.json").read_text())
    module.NUMBERS = np.load(PARITY / "modules.npz")
    return module


@pytest.fixture(scope="session")
def tokenizer():
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(PARITY / "tokenizer")


@pytest.fixture
def config():
    from consistentid.identity.config import AdapterConfig

    return AdapterConfig.preset(
        "embedded", text_dim=64, projector_width=64, facial_width=64, identity_dim=16, image_dim=32, image_tokens=17,
        lora_rank=4, image_encoder={"kind": "clip", "source": "unused"},
    )  # fmt: skip


@pytest.fixture
def unet():
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(16, 32), layers_per_block=1,
        norm_num_groups=8, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=64, attention_head_dim=16,
    ).eval()  # fmt: skip


@pytest.fixture
def adapter(config, unet):
    """An adapter whose LoRAs and k/v branch have an effect."""
    from consistentid.identity.adapter import IdentityAdapter

    adapter = IdentityAdapter.new(config, unet, seed=1)
    generator = torch.Generator().manual_seed(2)
    state = {
        key: torch.randn(value.shape, generator=generator) * 0.1 if key.endswith("lora.up.weight") else value.clone()
        for key, value in adapter.state().items()
    }
    adapter.load_state(state)
    return adapter


@pytest.fixture
def batch():
    """Inputs of two U-Net calls."""
    generator = torch.Generator().manual_seed(3)

    def random(*shape):
        return torch.randn(shape, generator=generator)

    return SimpleNamespace(
        latents=random(2, 4, 8, 8),
        timesteps=torch.tensor([3, 700]),
        text=random(2, 77, 64),
        identity=random(2, 16),
        image=random(2, 17, 32),
        regions=random(2, 5, 17, 32),
        positions=torch.tensor([[5, 9, 14, 20, 31], [4, 8, 12, 0, 0]]),
        valid=torch.tensor([[True] * 5, [True] * 3 + [False] * 2]),
    )


@pytest.fixture
def pipeline(unet, tokenizer):
    from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(4)
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49408, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
            bos_token_id=49406, eos_token_id=49407, pad_token_id=49407,
        )
    ).eval()  # fmt: skip
    vae = AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 8, 8, 8), latent_channels=4
    ).eval()
    pipe = StableDiffusionPipeline(
        vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, feature_extractor=None,
        scheduler=DDIMScheduler(clip_sample=False), safety_checker=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def image_encoder():
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    from consistentid.identity.image_encoder import ClipImageEncoder

    torch.manual_seed(5)
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8,
        projection_dim=16,
    )  # fmt: skip
    return ClipImageEncoder(CLIPVisionModelWithProjection(vision))


@pytest.fixture(scope="session")
def analyses(parity):
    """Two drawn faces: one with all regions, one whose ears are hidden."""
    from consistentid.faces.analysis import FaceAnalysis

    photo, labels, identity = parity.face_inputs(96)
    hidden = np.where(np.isin(labels, (7, 8)), 17, labels).astype(np.uint8)
    words = "The person has one face, two ears, two eyes, one nose, and one mouth."
    return [
        FaceAnalysis.from_parts(photo, labels, identity[:16], description=words),
        FaceAnalysis.from_parts(255 - photo, hidden, -identity[:16], description=words),
    ]
