from dataclasses import replace

import numpy as np
import pytest
import torch

from consistentid.faces.analysis import FaceAnalysis
from consistentid.generation.fingerprint import analysis_sha256
from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.request import GenerationRequest
from consistentid.generation.settings import GenerationSettings
from consistentid.generation.stored import from_tensors, to_tensors

PROMPT = "a portrait of a person"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def load(tiny_model, folder):
    """A generator as a new process would load it, that counts the images it encodes."""

    def load_one(**options) -> tuple[PortraitGenerator, list[int]]:
        generator = PortraitGenerator.from_pretrained(tiny_model, dtype="float32", **{"cache": folder, **options})
        encoded: list[int] = []
        encoder = generator.conditioner.image_encoder
        encode = encoder.encode
        encoder.encode = lambda pixels: encoded.append(len(pixels)) or encode(pixels)
        return generator, encoded

    return load_one


def latents(generator, face: FaceAnalysis, prompt: str = PROMPT, **settings) -> torch.Tensor:
    return generator.generate(face, prompt, output_type="latent", steps=2, merge_step=-1, **settings)[0].latents


def test_round_trip(generator: PortraitGenerator, drawn: FaceAnalysis) -> None:
    embeddings = generator.prepare(GenerationRequest(drawn, PROMPT, GenerationSettings())).embeddings
    again = from_tensors(to_tensors(embeddings))
    assert torch.equal(again.identity_tokens, embeddings.identity_tokens)
    assert torch.equal(again.conditioning.prompt_embeds, embeddings.conditioning.prompt_embeds)
    assert again.conditioning.pooled is None
    assert again.conditioning.regions == embeddings.conditioning.regions
    first, second = embeddings.conditioning.facial_prompt, again.conditioning.facial_prompt
    assert vars(first).keys() == vars(second).keys()
    for name, value in vars(first).items():
        other = vars(second)[name]
        assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other, name


def test_the_next_process_encodes_nothing_and_makes_the_same(load, drawn: FaceAnalysis) -> None:
    first, encoded = load()
    made = latents(first, drawn)
    assert encoded == [6, 1]
    latents(first, drawn, prompt="another prompt")
    assert encoded == [6, 1], "a new prompt needs no new look at the photo"
    second, encoded = load()
    assert torch.equal(latents(second, drawn), made)
    assert encoded == []
    latents(second, drawn, prompt="a third prompt")
    assert encoded == []


def test_another_photo_caption_weight_or_damage_is_computed_anew(load, folder, drawn, other) -> None:
    generator, encoded = load()
    made = latents(generator, drawn)
    assert not torch.equal(latents(generator, other), made)
    assert encoded == [6, 1, 6]
    assert not torch.equal(latents(generator, drawn, regions=("eyes",)), made)
    with torch.no_grad():
        next(generator.adapter.facial_encoder.parameters()).mul_(1.5)
    assert not torch.equal(latents(generator, drawn), made), "the weights changed in the running process"
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes()[:-1])
    again, encoded = load()
    assert torch.equal(latents(again, drawn), made)
    assert encoded == [6, 1]


def test_off_by_an_option_and_no_photo_in_the_files(load, folder, drawn: FaceAnalysis) -> None:
    from safetensors.torch import load_file

    generator, _ = load(cache=False)
    latents(generator, drawn)
    assert not folder.exists()
    generator, _ = load()
    latents(generator, drawn)
    shapes = {tuple(value.shape) for file in folder.iterdir() for value in load_file(file).values()}
    assert drawn.photo.shape not in shapes
    photo = np.ascontiguousarray(drawn.photo[80:84]).tobytes()
    assert all(photo not in file.read_bytes() for file in folder.iterdir())


def test_masks_of_another_parser_map_are_another_conditioning(drawn: FaceAnalysis) -> None:
    """Official masks are cut from the parser's own map; two of them may have the same map at the photo's size."""
    whole = np.kron(drawn.label_map, np.ones((2, 2), np.uint8))
    other = whole.copy()
    other[1::2, 1::2] = 0  # pixels that the nearest one at the photo's size does not read
    faces = [replace(drawn, parser_label_map=own) for own in (None, whole, whole.copy(), other)]
    none, first, same, changed = (analysis_sha256(face) for face in faces)
    assert first == same
    assert len({none, first, changed}) == 3
