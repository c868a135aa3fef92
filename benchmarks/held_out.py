"""Held-out people, their portraits by a model, and what is measured on both; for `control.py`."""

import json
import zlib
from argparse import ArgumentTypeError
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_img2img import retrieve_latents
from PIL import Image

from consistentid.dataset.holdout import is_held_out
from consistentid.evaluation.embedders import ImageEmbedder
from consistentid.evaluation.judge import Judge
from consistentid.evaluation.measured import Measured
from consistentid.faces.analysis import FaceAnalysis
from consistentid.faces.crops import Square, crop_square
from consistentid.generation.donors import Donors
from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.loading import embedded_folder
from consistentid.generation.request import GenerationRequest
from consistentid.generation.resolve import native_size
from consistentid.generation.settings import GenerationSettings
from consistentid.images import PhotoSource

PROMPT = "a portrait photo of a person"
_SHIFTS = ((0, 0), (1, 0), (0, 1), (1, 1))  # px, to the right and downwards


@dataclass(frozen=True)
class Person:
    """A held-out person: an analysed photo, what is measured on it and on another, if any; the seed of portraits."""

    seed: int
    name: str
    shown: tuple[str, ...]
    face: FaceAnalysis
    photo: Measured
    other: Measured | None


def photos_folder(text: str) -> Path:
    """The argument PHOTOS; for argparse."""
    if not (Path(text) / "portraits.jsonl").is_file():
        raise ArgumentTypeError(f"{text} has no portraits.jsonl")
    return Path(text)


class Bench:
    """A model and its judge."""

    def __init__(self, model: str, *, embedder: ImageEmbedder) -> None:
        self.generator = PortraitGenerator.from_pretrained(model, cache=False)
        self.judge = Judge.embedded(embedded_folder() if model == "embedded" else Path(model), regions=embedder)

    def people(self, folder: Path, count: int, *, seeds: Iterable[int], single: bool = False) -> list[Person]:
        """Held-out people with two photos, or with a single one: all by the first seed, then all by the next.

        They are spread over the list. Nobody shares noise with another: by a noise that draws everybody's eyes badly,
        a mean over people would be of that noise.
        """
        files = defaultdict(list)
        for line in (folder / "portraits.jsonl").read_text().splitlines():
            record = json.loads(line)
            files[record["person"]].append(folder / record["file"])
        wanted = [(name, photos) for name, photos in files.items() if (len(photos) == 1) == single]
        held = [(name, photos) for name, photos in wanted if is_held_out(name, len(photos))]
        chosen = [self._person(name, photos) for name, photos in held[:: max(1, len(held) // count)][:count]]
        return [replace(one, seed=zlib.crc32(f"{one.name} {seed}".encode())) for seed in seeds for one in chosen]

    def _person(self, name: str, photos: Sequence[Path]) -> Person:
        face = self.analyze(photos[0])
        shown = self.generator.prepare(GenerationRequest(face, PROMPT)).embeddings.conditioning.regions[0]
        photo, *others = (self.judge.measure(one) for one in photos[:2])
        return Person(0, name, shown, face, photo, others[0] if others else None)

    def analyze(self, photo: PhotoSource) -> FaceAnalysis:
        """A photo by the model's own analyzer."""
        assert self.generator.analyzer is not None  # `from_pretrained` makes one
        return self.generator.analyzer.analyze(photo)

    def portraits(
        self,
        people: Sequence[Person],
        donors: Iterable[Donors] | None = None,
        faces: Iterable[FaceAnalysis] | None = None,
        **settings: Any,
    ) -> list[Measured]:
        """What is measured on one portrait of each person, by default of their own photo and without donors."""
        faces, donors = faces or [person.face for person in people], donors or [Donors()] * len(people)
        requests = [
            GenerationRequest(face, PROMPT, GenerationSettings.of(seed=person.seed, **settings), donors=one)
            for person, face, one in zip(people, faces, donors, strict=True)
        ]
        return [self.measure(row[0].image) for row in self.generator.generate_batch(requests)]

    def framed(self, face: FaceAnalysis) -> Image.Image:
        """A photo as the model's own portraits are framed, at its size."""
        side = min(native_size(self.generator.pipeline))
        return crop_square(face.image, Square.portrait(face.box, face.landmarks), side)

    @torch.no_grad()
    def autoencoded(self, picture: Image.Image) -> Image.Image:
        """A picture after the model's autoencoder: what exact latents would draw."""
        pipeline = self.generator.pipeline
        pixels = pipeline.image_processor.preprocess(picture).to(pipeline.vae.dtype)
        decoded = pipeline.vae.decode(retrieve_latents(pipeline.vae.encode(pixels), sample_mode="argmax")).sample
        return pipeline.image_processor.postprocess(decoded)[0]

    def measure(self, portrait: Image.Image) -> Measured:
        """What is measured on a portrait; its regions are seen in four copies that are shifted by a pixel.

        The outline of a region in 128 px flips with next to nothing: FGIS of the eyes moves by 0.019 (standard
        deviation) when every value of the pixels changes by one at most, so seen by 0.010.
        """
        seen = [self.judge.measure(shifted(portrait, *by)) for by in _SHIFTS]
        regions, squares = _mean([one.regions for one in seen]), _mean([one.squares for one in seen])
        return replace(seen[0], regions=regions, squares=squares)


def shifted(picture: Image.Image, right: int, down: int) -> Image.Image:
    """A picture moved by whole pixels; what comes in repeats its edge."""
    pixels = np.pad(np.asarray(picture), ((down, 0), (right, 0), (0, 0)), mode="edge")
    return Image.fromarray(pixels[: picture.height, : picture.width])


def _mean(seen: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Mean of unit vectors, of the regions that the first sees."""
    found = {name: [one[name] for one in seen if name in one] for name in seen[0]}
    return {name: np.mean([each / np.linalg.norm(each) for each in row], 0) for name, row in found.items()}
