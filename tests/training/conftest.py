"""Tiny base models, a dataset of drawn faces and a store of random numbers for all tests of a session."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import CLIPTokenizer

from consistentid.dataset.wording import corpus
from consistentid.identity.dlib_image_encoder import DlibImageEncoder
from consistentid.training.embedded.config import AdapterSizes
from consistentid.training.embedded.diffusion import facial_prompt_tokenizer, new_models
from consistentid.training.embedded.models import new_tokenizer
from consistentid.training.embedded.prior import fit_prior
from consistentid.training.embedded.sampler import StoreSampler
from consistentid.training.embedded.store import GENDERS, References, Targets
from consistentid.training.identity_prior import IdentityPrior
from consistentid.training.prediction import TrainingModels


def _module(path: Path) -> Any:
    """A module of the tests, which are no package, under its own name."""
    if path.stem not in sys.modules:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        sys.modules[path.stem] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[path.stem])
    return sys.modules[path.stem]


tiny = _module(Path(__file__).parents[1] / "generation" / "tiny.py")
drawn_faces = _module(Path(__file__).with_name("drawn_faces.py"))


@pytest.fixture(scope="session")
def sd15(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base model with one text encoder."""
    return tiny.save_tiny_model(tmp_path_factory.mktemp("base") / "sd15")


@pytest.fixture(scope="session")
def sdxl(sd15: Path) -> Path:
    """A tiny base model with two."""
    pipeline, _ = tiny.tiny_sdxl(tiny.tiny_pipeline(sd15))
    pipeline.save_pretrained(sd15.with_name("sdxl"))
    return sd15.with_name("sdxl")


@pytest.fixture(scope="session")
def fgid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn faces."""
    return drawn_faces.drawn_dataset(tmp_path_factory.mktemp("data") / "fgid")


@pytest.fixture
def settings(sd15: Path, fgid: Path, tmp_path: Path) -> dict[str, Any]:
    """A tiny run; the values of a configuration file."""
    sizes = {"text_dim": 64, "projector_width": 64, "facial_width": 64, "facial_depth": 1, "lora_rank": 4}
    return {
        "kind": "adapter",
        "dataset": str(fgid),
        "out": str(tmp_path / "out"),
        "base": str(sd15),
        "adapter": {"base": "embedded", **sizes},
        "batch_size": 4,
        "workers": 0,
        "photos": {"resolution": 64, "buckets": False},
        "held_out": 4,
        "loop": {
            "steps": 3, "learning_rate": 1e-3, "warmup_steps": 1, "checkpoint_every": 2, "mixed_precision": "no",
            "log_every": 1, "ema_decay": 0,
        },
        "step": {"drop_all": 0.1, "drop_text": 0.05, "drop_identity": 0.1, "drop_regions": 0.1, "drop_region": 0.1},
    }  # fmt: skip


@pytest.fixture
def write(tmp_path: Path) -> Any:
    """Writes values as a configuration file."""

    def writes(values: dict[str, Any], name: str = "run.yaml") -> Path:
        path = tmp_path / name
        path.write_text(yaml.safe_dump(values))
        return path

    return writes


@pytest.fixture(scope="session")
def tokenizer() -> CLIPTokenizer:
    """Of the embedded model."""
    return new_tokenizer(corpus())


@pytest.fixture(scope="module")
def models(tokenizer: CLIPTokenizer) -> TrainingModels:
    """Fresh ones of the embedded model; tests of a module change them."""
    torch.manual_seed(0)
    return new_models(tokenizer, AdapterSizes(), encoder=DlibImageEncoder())


@pytest.fixture(scope="session")
def sampler(tokenizer: CLIPTokenizer) -> StoreSampler:
    """A store of random numbers whose embeddings are as close together as a recogniser's."""
    generator = torch.Generator().manual_seed(5)
    n, v = 6, 2
    centre = torch.randn(128, generator=generator) * 0.12
    whole = torch.randn(448, generator=generator)
    words = torch.zeros(n, v, 4, dtype=torch.uint8)
    words[::2, :, 0], words[1::2, :, 0] = GENDERS.index("man"), GENDERS.index("woman")
    return StoreSampler(
        latents=torch.randn(n, v, 8, 16, 16, generator=generator),
        targets=Targets(
            images=torch.zeros(n, v, 128, 128, 3, dtype=torch.uint8),
            foreground=torch.ones(n, v, 16, 16, dtype=torch.bool),
            regions=torch.ones(n, v, 5, 16, 16, dtype=torch.bool),
            words=words,
            donors=torch.arange(n)[:, None].expand(n, v),
            mixed=torch.zeros(n, v, 5, dtype=torch.bool),
        ),
        references=References(
            identity=centre + 0.05 * torch.randn(n, v, 128, generator=generator),
            whole=whole + 0.1 * torch.randn(n, v, 64, 448, generator=generator),
            regions=whole + 0.1 * torch.randn(n, v, 5, 64, 448, generator=generator),
            present=torch.ones(n, v, 5, dtype=torch.bool),
        ),
        persons=torch.arange(n),
        tokenize=facial_prompt_tokenizer(tokenizer),
    )


@pytest.fixture(scope="session")
def prior(sampler: StoreSampler) -> IdentityPrior:
    """What the store says; fitted once, because that takes seconds."""
    return fit_prior(sampler.targets, sampler.references, sampler.latents)
