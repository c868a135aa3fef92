"""The model in the package, as a newcomer meets it: the person is recognised, and the prompt obeyed."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from consistentid.faces.attributes import measure_attributes
from consistentid.faces.detection import DlibDetector
from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.in_place import put_into
from consistentid.generation.loading import embedded_folder
from consistentid.generation.request import GenerationRequest
from consistentid.generation.settings import GenerationSettings

PROMPT = "a portrait photo of a person"


@pytest.fixture(scope="module")
def packaged() -> PortraitGenerator:
    return PortraitGenerator.from_pretrained("embedded", offline=True, cache=False)


def _portraits(generator: PortraitGenerator, photos: list[Path], prompt: str) -> list[Image.Image]:
    requests = [GenerationRequest(photo, prompt, GenerationSettings(seed=0)) for photo in photos]
    return [row[0].image for row in generator.generate_batch(requests)]


def test_portraits_are_nearer_to_their_person_than_to_another(
    packaged: PortraitGenerator, sample_photos: dict[str, Path]
) -> None:
    """In dlib's embedding, where 0.6 is its usual threshold for one person."""
    photos, detector = list(sample_photos.values()), DlibDetector()
    people = [detector.detect(np.asarray(Image.open(path).convert("RGB")))[0].identity_embedding for path in photos]
    for index, picture in enumerate(_portraits(packaged, photos, PROMPT)):
        drawn = detector.detect(np.asarray(picture))[0].identity_embedding
        distances = [float(np.linalg.norm(drawn - person)) for person in people]
        assert int(np.argmin(distances)) == index
        assert distances[index] < 0.75


def test_the_folder_is_a_normal_pipeline() -> None:
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(embedded_folder())
    picture = pipeline(PROMPT, num_inference_steps=1, output_type="np").images[0]
    assert picture.shape == (128, 128, 3)
    assert picture.std() > 0.05


def test_the_prompt_decides_hair_and_background(packaged: PortraitGenerator, sample_photos: dict[str, Path]) -> None:
    assert packaged.analyzer is not None
    parser, detector, photos = packaged.analyzer.parser, DlibDetector(), [sample_photos["synthetic-woman"]]
    found = []
    for words in ("with blond hair, white background", "with black hair, black background"):
        picture = _portraits(packaged, photos, f"{PROMPT} {words}")[0].resize((256, 256), Image.Resampling.BICUBIC)
        pixels = np.asarray(picture)
        found.append(measure_attributes(pixels, parser.parse(pixels, detector.detect(pixels)[0])))
    assert found[0].hair_lab[0] > found[1].hair_lab[0]
    assert found[0].background_lab[0] > found[1].background_lab[0]


def test_a_face_is_painted_into_another_photo(packaged: PortraitGenerator, sample_photos: dict[str, Path]) -> None:
    """Its latents have 8 channels, which stock pipelines for inpainting do not expect."""
    woman, man = (sample_photos[name] for name in ("synthetic-woman", "official-man"))
    channels, detector = packaged.pipeline.unet.config.in_channels, DlibDetector()
    request = GenerationRequest(woman, "a portrait photo of a woman", GenerationSettings(seed=12))
    made = put_into(packaged, request, man)[0].image
    assert packaged.pipeline.unet.config.in_channels == channels
    photos = [np.asarray(Image.open(path).convert("RGB")) for path in (woman, man)]
    people = [detector.detect(photo)[0].identity_embedding for photo in photos]
    there = detector.detect(np.asarray(made))[0].identity_embedding
    assert np.linalg.norm(there - people[0]) < np.linalg.norm(people[1] - people[0])
    assert np.linalg.norm(there - people[1]) > 0.3
