"""Which pixels of a portrait, or of the photo itself, every region's word and every identity token was read by."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from consistentid.errors import NoFaceFound
from consistentid.faces.analysis import FaceAnalysis, FaceAnalyzer
from consistentid.faces.crops import Square, crop_square
from consistentid.faces.regions import region_masks
from consistentid.generation.callbacks import StepReport
from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.portrait import Portrait
from consistentid.generation.request import GenerationRequest, Shot, check_one_person
from consistentid.generation.resolve import native_size
from consistentid.generation.scores import enlarged
from consistentid.generation.settings import GenerationSettings
from consistentid.identity.attention_maps import AttentionRecorder, cross_attention_layers, outside_less_inside

_PROMPT = "a portrait photo of a person"
_NOISE = (0.2, 0.4, 0.6, 0.8)  # shares of the schedule at which a photo is looked at
_STEPS = 20  # of the schedule; of each share, one step is run


@dataclass(frozen=True, eq=False)
class Attention:
    """Attention of one picture, averaged over layers and heads.

    Attributes:
        picture: what was looked at.
        moments: when, in words.
        tokens: names of the regions whose words the prompt has, and `identity 1`, `identity 2`, …; in the place of a
            region that somebody else gives, the giver's.
        maps: (s, n, h, w) of every moment and token, at the size of the latents; each sums to its share of attention.
        localisation: of every region that the picture shows: mean attention inside the region minus outside, from -1
            to 1, of the map over all moments (minus eq. 1 of arXiv:2404.16771). Empty when no face is found.
    """

    picture: Image.Image
    moments: tuple[str, ...]
    tokens: tuple[str, ...]
    maps: Float[np.ndarray, "s n h w"]
    localisation: dict[str, float]

    @property
    def mean(self) -> Float[np.ndarray, "n h w"]:
        """The maps averaged over all moments."""
        return self.maps.mean(0)


@dataclass(frozen=True, eq=False)
class Explanation(Attention):
    """Attention of one portrait's run, in every step.

    Attributes:
        portrait: what was made.
    """

    portrait: Portrait


def explain(generator: PortraitGenerator, request: GenerationRequest, **options: Any) -> list[Explanation]:
    """Make the portraits of a request, one by one, and watch the attention; the pictures are those of a plain call.

    Args:
        generator: makes them.
        request: of one or more images.
        **options: as in `Renderer.portraits`, without `callback`, `batch_size` and `output_type`.

    Raises:
        InvalidSettings: there are several people in the picture.
        ConsistentIDError: as in `PortraitGenerator.generate`.
    """
    check_one_person(request, "an explanation")
    prepared = generator.prepare(request)
    prompt = prepared.embeddings.conditioning.facial_prompt
    found = []
    for k in range(prepared.settings.num_images):
        watch = _Watch(generator.pipeline, prompt.positions, size=prepared.settings.size or (8, 8))
        with watch.recorder.recording():
            (portrait,) = generator.renderer.portraits([Shot(prepared, k)], batch_size=1, callback=watch, **options)
        maps = np.stack(watch.steps)
        localisation = _localised(prompt.regions, maps, _regions_of(portrait, generator.analyzer))
        moments = tuple(f"step {step + 1}" for step in range(len(maps)))
        tokens = _names(prompt.regions, maps)
        found.append(Explanation(portrait.image, moments, tokens, maps, localisation, portrait))
    return found


def explain_photo(generator: PortraitGenerator, photo: FaceAnalysis, *, seed: int = 0) -> Attention:
    """Noise the photo of a person, denoise it by one step with that person's conditioning, and watch the attention.

    The face is cut out as the model's own portraits are framed; there is no guidance, and regions act in every step.

    Args:
        generator: whose model is asked.
        photo: what was found in it.
        seed: of the noise.
    """
    square, side = Square.portrait(photo.box, photo.landmarks), min(native_size(generator.pipeline))
    picture = crop_square(photo.image, square, side)
    labels = crop_square(Image.fromarray(photo.label_map), square, side, nearest=True)
    asked = GenerationSettings(seed=seed, size=(side, side), steps=_STEPS, guidance=1, merge_step=-1)
    maps = []
    for share in _NOISE:
        inputs = {"image": picture, "strength": share}
        prepared = generator.prepare(GenerationRequest(photo, _PROMPT, asked, task="img2img", inputs=inputs))
        prompt = prepared.embeddings.conditioning.facial_prompt
        watch = _Watch(generator.pipeline, prompt.positions, size=(side, side), only_first=True)
        with watch.recorder.recording(), suppress(_Seen):
            generator.renderer.portraits([Shot(prepared, 0)], callback=watch)
        maps += watch.steps
    every = np.stack(maps)
    localisation = _localised(prompt.regions, every, region_masks(np.asarray(labels)))
    moments = tuple(f"{share:.0%} noise" for share in _NOISE)
    return Attention(picture, moments, _names(prompt.regions, every), every, localisation)


class _Seen(Exception):
    """Ends a run that was watched long enough."""


class _Watch:
    """A step callback that keeps the maps of a run of one image."""

    def __init__(
        self, pipeline: Any, positions: tuple[int, ...], *, size: tuple[int, int], only_first: bool = False
    ) -> None:
        unet = pipeline.unet
        self.recorder = AttentionRecorder(unet, cross_attention_layers(unet), identity=True)
        self.positions = positions
        self.only_first = only_first
        self.size = size[1] // pipeline.vae_scale_factor, size[0] // pipeline.vae_scale_factor
        self.steps: list[Float[np.ndarray, "n h w"]] = []

    def __call__(self, step: StepReport) -> None:
        del step
        words = torch.tensor([self.positions])
        found = [self._averaged(self.recorder.maps(words)), self._averaged(self.recorder.identity_maps())]
        self.steps.append(torch.cat([maps for maps in found if maps is not None]).numpy())
        if self.only_first:
            raise _Seen

    @torch.no_grad()
    def _averaged(self, layers: Iterable[Float[Tensor, "b h q n"]]) -> Float[Tensor, "n h w"] | None:
        """Of the last row, which is never that of the guidance branch."""
        maps = [
            F.interpolate(_as_picture(layer[-1:].float().mean(1), self.size), size=self.size, mode="bilinear")[0]
            for layer in layers
        ]
        return torch.stack(maps).mean(0).cpu() if maps else None


def _as_picture(maps: Float[Tensor, "1 q n"], size: tuple[int, int]) -> Float[Tensor, "1 n h w"]:
    """Pixels row by row -> a picture, whose sides are those of the latents halved as often as the U-Net did."""
    height, width = next(sides for sides in _halved(size) if sides[0] * sides[1] == maps.shape[1])
    return maps.transpose(1, 2).unflatten(2, (height, width))


def _halved(size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    while True:
        yield size
        size = -(-size[0] // 2), -(-size[1] // 2)


def _names(regions: Sequence[str], maps: Float[np.ndarray, "s n h w"]) -> tuple[str, ...]:
    return (*regions, *(f"identity {index + 1}" for index in range(maps.shape[1] - len(regions))))


def _regions_of(portrait: Portrait, analyzer: FaceAnalyzer | None) -> Mapping[str, UInt8[np.ndarray, "h w"]]:
    if analyzer is None or portrait.picture is None or portrait.withheld:
        return {}
    try:
        found = analyzer.analyze(enlarged(portrait.picture))
    except NoFaceFound:
        return {}
    return region_masks(found.label_map)


def _localised(
    regions: Sequence[str], maps: Float[np.ndarray, "s n h w"], masks: Mapping[str, UInt8[np.ndarray, "h2 w2"]]
) -> dict[str, float]:
    words = dict(zip(regions, maps.mean(0), strict=False))
    return {name: _inside_less_outside(words[name], masks[name]) for name in words if name in masks}


def _inside_less_outside(attention: Float[np.ndarray, "h w"], mask: UInt8[np.ndarray, "h2 w2"]) -> float:
    region = F.interpolate(torch.from_numpy(mask).float()[None, None], size=attention.shape, mode="area")
    pixels = torch.from_numpy(attention).flatten()[None, None, :, None]
    return -float(outside_less_inside(pixels, region.flatten(2)[:, 0, None]))
