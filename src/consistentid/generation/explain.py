"""Which pixels of a portrait every region's word and every identity token was read by."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from consistentid.errors import NoFaceFound
from consistentid.faces.analysis import FaceAnalyzer
from consistentid.faces.regions import region_masks
from consistentid.generation.callbacks import StepReport
from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.portrait import Portrait
from consistentid.generation.request import GenerationRequest, Shot, check_one_person
from consistentid.generation.scores import enlarged
from consistentid.identity.attention_maps import AttentionRecorder, cross_attention_layers, outside_less_inside


@dataclass(frozen=True, eq=False)
class Explanation:
    """Attention of one portrait's run, averaged over layers and heads.

    Attributes:
        portrait: what was made.
        tokens: names of the regions whose words the prompt has, and `identity 1`, `identity 2`, ….
        maps: (s, n, h, w) of every step and token, at the size of the latents; each sums to its share of attention.
        localisation: of every region that the portrait shows: mean attention inside the region minus outside, from -1
            to 1, of the map over all steps (minus eq. 1 of arXiv:2404.16771). Empty when no face is found.
    """

    portrait: Portrait
    tokens: tuple[str, ...]
    maps: Float[np.ndarray, "s n h w"]
    localisation: dict[str, float]

    @property
    def mean(self) -> Float[np.ndarray, "n h w"]:
        """The maps averaged over all steps."""
        return self.maps.mean(0)


def explain(generator: PortraitGenerator, request: GenerationRequest, **options: Any) -> list[Explanation]:
    """Make the portraits of a request, one by one, and watch the attention; the pictures are those of a plain call.

    Args:
        generator: makes them.
        request: of one or more images.
        **options: as in `Renderer.portraits`, without `callback` and `batch_size`.

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
        identity = [f"identity {index + 1}" for index in range(maps.shape[1] - len(prompt.regions))]
        words = dict(zip(prompt.regions, maps.mean(0), strict=False))
        found.append(
            Explanation(
                portrait, (*prompt.regions, *identity), maps, _localisation(portrait, words, generator.analyzer)
            )
        )
    return found


class _Watch:
    """A step callback that keeps the maps of a run of one image."""

    def __init__(self, pipeline: Any, positions: tuple[int, ...], *, size: tuple[int, int]) -> None:
        unet = pipeline.unet
        self.recorder = AttentionRecorder(unet, cross_attention_layers(unet), identity=True)
        self.positions = positions
        self.size = size[1] // pipeline.vae_scale_factor, size[0] // pipeline.vae_scale_factor
        self.steps: list[Float[np.ndarray, "n h w"]] = []

    def __call__(self, step: StepReport) -> None:
        del step
        words = torch.tensor([self.positions])
        found = [self._averaged(self.recorder.maps(words)), self._averaged(self.recorder.identity_maps())]
        self.steps.append(torch.cat([maps for maps in found if maps is not None]).numpy())

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


def _localisation(
    portrait: Portrait, words: dict[str, Float[np.ndarray, "h w"]], analyzer: FaceAnalyzer | None
) -> dict[str, float]:
    if analyzer is None or portrait.picture is None or portrait.withheld:
        return {}
    try:
        found = analyzer.analyze(enlarged(portrait.picture))
    except NoFaceFound:
        return {}
    masks = region_masks(found.label_map)
    return {name: _inside_less_outside(words[name], masks[name]) for name in words if name in masks}


def _inside_less_outside(attention: Float[np.ndarray, "h w"], mask: UInt8[np.ndarray, "h2 w2"]) -> float:
    region = F.interpolate(torch.from_numpy(mask).float()[None, None], size=attention.shape, mode="area")
    pixels = torch.from_numpy(attention).flatten()[None, None, :, None]
    return -float(outside_less_inside(pixels, region.flatten(2)[:, 0, None]))
