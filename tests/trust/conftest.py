"""Pictures that look like some, and the record of a portrait, without a model."""

from pathlib import Path

import pytest
from PIL import Image

from consistentid.generation.portrait import Portrait
from consistentid.generation.settings import PortraitSettings


@pytest.fixture(scope="session")
def picture(sample_photos: dict[str, Path]) -> Image.Image:
    """A face of 128 x 128, the size of the embedded model's."""
    return Image.open(sample_photos["official-man"]).convert("RGB").resize((128, 128), Image.Resampling.LANCZOS)


@pytest.fixture
def settings() -> PortraitSettings:
    return PortraitSettings(
        prompt="a portrait of Jane Doe, “laughing” & 笑",
        negative_prompt="Janes hat",
        caption="Janes face",
        facial_prompt="a portrait of Jane Doe, Janes face",
        words={"mouth": "Janes mouth"},
        model="/home/jane/models/sd15",
        loras=("/home/jane/lora.safetensors:0.5",),
        photo="/home/jane/photo.jpg",
        photo_sha256="a" * 64,
        analysis_sha256="b" * 64,
        weights_sha256="c" * 64,
        dtype="float32",
        device="cpu",
        threads=1,
        consent="stated",
        versions={"consistentid": "0.1.0"},
    )


@pytest.fixture
def portrait(settings: PortraitSettings, picture: Image.Image) -> Portrait:
    return Portrait(settings, picture)
