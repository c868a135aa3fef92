"""What a user's own typed code looks like: `make package` checks it by mypy --strict against the installed wheel.

It is never run.
"""

from pathlib import Path
from typing import assert_type

from diffusers import StableDiffusionPipeline
from PIL import Image
from torch import Tensor

from consistentid.errors import ConsistentIDError, NoFaceFound
from consistentid.faces.analysis import FaceAnalysis, FaceAnalyzer
from consistentid.generation.callbacks import StepReport
from consistentid.generation.donors import Donors
from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.portrait import Portrait, read_settings
from consistentid.generation.request import GenerationRequest
from consistentid.generation.settings import GenerationSettings, PortraitSettings
from consistentid.identity.adapter import IdentityAdapter
from consistentid.identity.conditioner import Conditioner
from consistentid.identity.conditioning import Conditioning
from consistentid.trust.policy import PromptPolicy


def portraits_of(photo: Path, prompt: str, out: Path) -> list[PortraitSettings]:
    """Generate, save, read the records."""
    generator = PortraitGenerator.from_pretrained("embedded", policy=PromptPolicy(blocked=("somebody",)))
    assert_type(generator, PortraitGenerator)

    def told(report: StepReport) -> None:
        assert_type(report.step, int)
        assert_type(report.latents, Tensor)

    try:
        portraits = generator.generate(photo, prompt, num_images=2, seed=7, donors=Donors(), callback=told)
    except NoFaceFound as error:
        raise ConsistentIDError(str(error)) from error
    assert_type(portraits, list[Portrait])
    assert_type(portraits[0].image, Image.Image)
    assert_type(portraits[0].settings.seed, int)
    saved = [portrait.save(out / f"{index}.png") for index, portrait in enumerate(portraits)]
    assert_type(saved, list[Path])
    return [read_settings(path) for path in saved]


def batch(generator: PortraitGenerator, photos: list[Path]) -> list[list[Portrait]]:
    """Many requests share denoising runs."""
    settings = GenerationSettings.of(steps=20, regions=("face", "eyes"))
    return generator.generate_batch([GenerationRequest(photo, "a portrait", settings) for photo in photos])


def by_hand(pipeline: StableDiffusionPipeline, folder: Path, photo: Path) -> Conditioning:
    """The parts that the generator is made of."""
    analysis = FaceAnalyzer.from_pretrained(folder).analyze(photo, face="largest")
    assert_type(analysis, FaceAnalysis)
    assert_type(analysis.description, str | None)
    adapter = IdentityAdapter.from_pretrained(folder / "adapter")
    assert_type(adapter, IdentityAdapter)
    adapter.attach(pipeline)
    conditioning = Conditioner.from_pipeline(pipeline, adapter).condition(analysis, "a portrait")
    adapter.detach()
    assert_type(len(conditioning), int)
    return conditioning
