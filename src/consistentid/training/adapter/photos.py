"""Records -> targets to be drawn and references to be shown, in variants."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image
from torch import Tensor

from consistentid.dataset.record import FGIDRecord
from consistentid.dataset.shards import FGIDDataset
from consistentid.errors import InvalidData, first_line
from consistentid.faces.analysis import FaceAnalysis
from consistentid.faces.crops import mirror_landmarks
from consistentid.faces.regions import BACKGROUND, REGION_NAMES, mirror_labels, region_masks
from consistentid.identity.config import Quirks
from consistentid.identity.reference import reference_images
from consistentid.training.adapter.config import PhotoConfig
from consistentid.training.adapter.framing import Framed, Size, frame_face, frame_photo
from consistentid.training.augment import jitter_colour

_SEED = 0  # of the variants, which are the same in every run
AS_THEY_ARE = (0, 1)  # variants whose colours do not change: the photo and its mirror image


@dataclass(frozen=True)
class Target:
    """What is to be drawn.

    Attributes:
        content: pixels, or scaled latents when they were computed before.
        foreground: the person, at latent resolution.
        regions: masks of the regions, at latent resolution.
        place: see `Framed.place`.
    """

    content: UInt8[Tensor, "3 h w"] | Float[Tensor, "c h2 w2"]
    foreground: Float[Tensor, "1 h2 w2"]
    regions: Float[Tensor, "n h2 w2"]
    place: Int[Tensor, " 6"]


@dataclass(frozen=True)
class Reference:
    """What is shown of the person.

    Attributes:
        content: the image encoder's pixel values of the head and of every region, or its hidden states when they were
            computed before; zeros where a region is not present.
        present: which regions the photo shows.
        identity: the recogniser's embedding.
    """

    content: Float[Tensor, "m 3 s s"] | Float[Tensor, "m t d"]
    present: Bool[Tensor, " n"]
    identity: Float[Tensor, " d"]


class Photos(Protocol):
    """Where targets and references come from."""

    @property
    def variants(self) -> int: ...  # noqa: D102

    def target(self, index: int, variant: int) -> Target: ...  # noqa: D102

    def reference(self, index: int, variant: int) -> Reference: ...  # noqa: D102


@dataclass(frozen=True)
class OpenedPhotos:
    """Targets and references cut from a dataset's photos; the same index and variant give the same ones.

    Attributes:
        sizes: of targets, for each bucket.
        buckets: of each record.
        pixels: the image encoder's preprocessing.
        scale: pixels of a target for one of its latents, along a side.
        variants: of each photo; as good as without end.
    """

    dataset: FGIDDataset
    config: PhotoConfig
    sizes: tuple[Size, ...]
    buckets: Int[np.ndarray, " m"]
    pixels: Callable[[Sequence[Image.Image]], Float[Tensor, "b 3 s s"]]
    quirks: Quirks
    scale: int
    variants: int = 2**20

    def target(self, index: int, variant: int) -> Target:
        """What is to be drawn."""
        record, rng = self.dataset[index], np.random.default_rng((_SEED, index, variant))
        with _named(record):
            framed = self._framed(record, self.sizes[self.buckets[index]], rng)
        if self._is_mirrored(variant):
            framed = framed.mirrored()
        masks = region_masks(framed.label_map)
        nothing = np.zeros(framed.label_map.shape, bool)
        return Target(
            torch.from_numpy(framed.photo.copy()).permute(2, 0, 1),
            self._at_latents(framed.label_map != BACKGROUND)[None],
            torch.stack([self._at_latents(masks.get(name, nothing)) for name in REGION_NAMES]),
            torch.tensor(framed.place),
        )

    def reference(self, index: int, variant: int) -> Reference:
        """What is shown of the person."""
        record = self.dataset[index]
        with _named(record):
            analysis = record.analysis()
        if self._is_mirrored(variant):
            analysis = _mirrored(analysis)
        if self.config.jitter and variant not in AS_THEY_ARE:
            analysis = replace(analysis, photo=jitter_colour(analysis.photo, np.random.default_rng((index, variant))))
        images = reference_images(analysis, self.quirks)
        shown = [images.whole, *(images.regions[name] for name in REGION_NAMES if name in images.regions)]
        pixels = self.pixels(shown)
        present = torch.tensor([name in images.regions for name in REGION_NAMES])
        content = torch.zeros(1 + len(REGION_NAMES), *pixels.shape[1:])
        content[torch.cat([torch.tensor([True]), present])] = pixels
        return Reference(content, present, torch.from_numpy(analysis.identity_embedding))

    def _framed(self, record: FGIDRecord, size: Size, rng: np.random.Generator) -> Framed:
        photo, label_map = record.open_photo(), record.open_label_map()
        if self.config.framing == "photo":
            return frame_photo(photo, label_map, size, box=record.box)
        return frame_face(photo, label_map, size, landmarks=np.array(record.landmarks), rng=rng)

    def _is_mirrored(self, variant: int) -> bool:
        return self.config.mirror and variant % 2 == 1

    def _at_latents(self, mask: Bool[np.ndarray, "h w"]) -> Float[Tensor, "h2 w2"]:
        size = (mask.shape[1] // self.scale, mask.shape[0] // self.scale)
        return torch.from_numpy(cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA))


@contextmanager
def _named(record: FGIDRecord) -> Iterator[None]:
    """Say which record cannot be read."""
    try:
        yield
    except OSError as error:
        raise InvalidData(
            f"record {record.id} ({record.origin}) cannot be decoded ({first_line(error)}); `consistentid dataset "
            "validate` lists all such records"
        ) from error


def _mirrored(analysis: FaceAnalysis) -> FaceAnalysis:
    assert analysis.landmarks is not None  # records have them
    width = analysis.photo.shape[1]
    left, top, right, bottom = analysis.box
    return replace(
        analysis,
        photo=np.asarray(Image.fromarray(analysis.photo).transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
        label_map=mirror_labels(analysis.label_map),
        landmarks=mirror_landmarks(analysis.landmarks, width),
        box=(width - right, top, width - left, bottom),
    )
