"""Stage 2: the face parser, the upright face -> 19 classes, trained on pseudo-labels."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from consistentid.errors import InvalidData
from consistentid.faces.analysis import landmarks_of_labels
from consistentid.faces.crops import alignment
from consistentid.faces.parsing import FACE_ZOOM, IMAGE_MEAN, IMAGE_STD, with_position
from consistentid.faces.regions import BACKGROUND, LABEL_NAMES, MIRRORED_LABELS
from consistentid.training.share import Share

STORED_SCALE = 3.0  # side of a training crop / side of the face box: wider than the parser's view, to move in it
SIZE = 192  # px of the parser's view
_SMALL_CLASSES = (2, 3, 4, 5, 7, 8, 10, 11, 12, 13)


def new_parser() -> SegformerForSemanticSegmentation:
    """An untrained parser of about a million parameters."""
    config = SegformerConfig(
        num_channels=5,
        hidden_sizes=[16, 32, 80, 160],
        depths=[1, 2, 2, 2],
        num_attention_heads=[1, 2, 4, 5],
        mlp_ratios=[3, 3, 3, 3],
        decoder_hidden_size=96,
        classifier_dropout_prob=0.0,
        drop_path_rate=0.0,  # the only randomness is the task's own generator
        id2label=dict(enumerate(LABEL_NAMES)),
        label2id={name: index for index, name in enumerate(LABEL_NAMES)},
        face_zoom=FACE_ZOOM,
        face_size=SIZE,
    )
    return SegformerForSemanticSegmentation(config)


@dataclass(frozen=True)
class ParserBatch:
    """Normalised photos with positions, and their classes."""

    photos: Float[Tensor, "b 5 s s"]
    label_maps: Int[Tensor, "b s s"]


@dataclass
class ParserTask:
    """Pixel-wise cross-entropy plus soft Dice on strongly augmented, upright faces.

    Faces whose label map lacks an eye, the nose or the lips are left out: their landmarks are not known.

    Attributes:
        photos: (n, s, s, 3) crops of `STORED_SCALE`.
        label_maps: (n, s, s) their classes, CelebAMask-HQ numbers.
    """

    parser: SegformerForSemanticSegmentation
    photos: UInt8[Tensor, "n s s 3"]
    label_maps: UInt8[Tensor, "n s s"]
    batch_size: int = 8
    small_class_weight: float = 2.0

    @cached_property
    def _views(self) -> tuple[Int[Tensor, " m"], Float[Tensor, "m 2 3"]]:
        """Indices of the usable faces, and the map of each from the parser's view to the crop, both in -1..1."""
        indices, views = [], []
        for index, label_map in enumerate(self.label_maps.numpy()):
            try:
                landmarks = landmarks_of_labels(label_map)
            except InvalidData:
                continue
            # In units where the crop is 2 wide and its centre 0; the view is 2 wide, too.
            matrix = alignment(landmarks * (2 / label_map.shape[0]) - 1, 2, zoom=FACE_ZOOM)
            matrix[:, 2] += matrix[:, :2].sum(1)
            indices.append(index)
            views.append(torch.from_numpy(matrix).float())
        return torch.tensor(indices), torch.stack(views)

    @property
    def modules(self) -> dict[str, nn.Module]:
        """See `Task.modules`."""
        return {"parser": self.parser}

    def losses(self, share: Share) -> dict[str, Tensor]:
        """See `Task.losses`."""
        generator = share.generator()
        config: Any = self.parser.config
        usable, views = self._views
        rows = torch.randint(len(usable), (self.batch_size,), generator=generator)
        indices = usable[rows]
        batch = augment(
            self.photos[indices],
            self.label_maps[indices],
            views[rows],
            size=config.face_size,
            generator=generator,
        )
        logits = self.parser(pixel_values=batch.photos).logits.float()
        logits = F.interpolate(logits, size=batch.label_maps.shape[-2:], mode="bilinear")
        weights = torch.ones(len(LABEL_NAMES))
        weights[list(_SMALL_CLASSES)] = self.small_class_weight
        entropy = F.cross_entropy(logits, batch.label_maps, weight=weights)
        dice = _dice(logits, batch.label_maps)
        return {"loss": entropy + 0.5 * dice, "cross_entropy": entropy, "dice": dice}


def _dice(logits: Tensor, label_maps: Tensor) -> Tensor:
    """1 - soft Dice over the batch, mean over the classes that are present."""
    probabilities = logits.softmax(1)
    truth = F.one_hot(label_maps, logits.shape[1]).permute(0, 3, 1, 2).to(probabilities)
    overlap = (probabilities * truth).sum((0, 2, 3))
    total = probabilities.sum((0, 2, 3)) + truth.sum((0, 2, 3))
    present = truth.sum((0, 2, 3)) > 0
    return 1 - (2 * overlap[present] / total[present]).mean()


def augment(
    photos: UInt8[Tensor, "b s s 3"],
    label_maps: UInt8[Tensor, "b s s"],
    views: Float[Tensor, "b 2 3"],
    *,
    size: int,
    generator: torch.Generator,
) -> ParserBatch:
    """Photos from anywhere: landmarks a little off, mirrored, occluded, on other backgrounds, blurred, grey, tinted."""
    images = photos.permute(0, 3, 1, 2).float() / 255
    labels = label_maps.long()
    images = _other_background(images, labels, generator)
    images, labels = _warp(images, labels, views, size, generator)
    images, labels = _occlude(images, labels, generator)
    images = _photograph(images, generator)
    mean, std = torch.tensor(IMAGE_MEAN).view(3, 1, 1), torch.tensor(IMAGE_STD).view(3, 1, 1)
    return ParserBatch(with_position((images - mean) / std), labels)


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=generator)


def _chosen(count: int, probability: float, generator: torch.Generator) -> Tensor:
    return (torch.rand(count, generator=generator) < probability).view(-1, 1, 1, 1)


def _other_background(images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """A third of the photos get a smooth random background, a sixth a piece of another photo."""
    count, _, height, width = images.shape
    colours = torch.rand(count, 3, 3, 3, generator=generator)
    smooth = F.interpolate(colours, size=(height, width), mode="bicubic").clamp(0, 1)
    corner = images[:, :, : height // 2, : width // 3].roll(1, 0)
    busy = F.interpolate(corner, size=(height, width), mode="bilinear")
    kind = torch.rand(count, generator=generator).view(-1, 1, 1, 1)
    background = torch.where(kind < 1 / 3, smooth, busy)
    behind = (labels == BACKGROUND)[:, None].float()
    softened = F.avg_pool2d(behind, 5, 1, 2)
    return torch.where(kind < 1 / 2, background * softened + images * (1 - softened), images)


def _warp(
    images: Tensor, labels: Tensor, views: Tensor, size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The view of each face, as if its landmarks had been found a little off; half of the photos are mirrored."""
    count = len(images)
    zoom = torch.exp2(_uniform(count, -0.25, 0.25, generator))
    angle = _uniform(count, -1, 1, generator) ** 3 * math.radians(20)
    stretch = torch.exp2(_uniform(count, -0.1, 0.1, generator))
    mirrored = torch.rand(count, generator=generator) < 0.5
    side = torch.where(mirrored, -1.0, 1.0)
    shift = torch.stack([_uniform(count, -0.06, 0.06, generator) for _ in range(2)], 1)
    cosine, sine = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    linear = torch.stack([torch.stack([cosine * side * stretch, -sine], 1), torch.stack([sine * side, cosine], 1)], 1)
    inside, offset = views[:, :, :2], views[:, :, 2:]
    whole = torch.cat([inside @ linear, inside @ shift[..., None] + offset], 2)
    grid = F.affine_grid(whole, [count, 3, size, size], align_corners=False)
    images = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    labels = F.grid_sample(labels[:, None].float(), grid, mode="nearest", padding_mode="border", align_corners=False)
    table = torch.arange(len(LABEL_NAMES))
    for left, right in MIRRORED_LABELS:
        table[left], table[right] = right, left
    labels = labels[:, 0].round().long()
    return images, torch.where(mirrored.view(-1, 1, 1), table[labels], labels)


def _occlude(images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A fifth of the photos: an ellipse of one colour or of another photo covers a part, which becomes background."""
    count, _, size, _ = images.shape
    axis = torch.linspace(-1, 1, size)
    x0, y0 = (_uniform(count, -0.9, 0.9, generator).view(-1, 1, 1) for _ in range(2))
    width, height = (_uniform(count, 0.08, 0.4, generator).view(-1, 1, 1) for _ in range(2))
    inside = ((axis.view(1, 1, -1) - x0) / width) ** 2 + ((axis.view(1, -1, 1) - y0) / height) ** 2 < 1
    inside &= _chosen(count, 1 / 5, generator)[:, 0]
    flat = torch.rand(count, 3, 1, 1, generator=generator).expand_as(images)
    cover = torch.where(_chosen(count, 0.6, generator), flat, images.roll(1, 0).flip(2))
    return torch.where(inside[:, None], cover, images), labels.masked_fill(inside, BACKGROUND)


def _photograph(images: Tensor, generator: torch.Generator) -> Tensor:
    """Light, colour, grey, sharpness and noise of other cameras."""
    count, _, size, _ = images.shape
    gamma = torch.exp2(_uniform(count, -0.7, 0.7, generator)).view(-1, 1, 1, 1)
    images = images.clamp(1e-4, 1) ** gamma
    gain = torch.exp2(_uniform(count * 3, -0.2, 0.2, generator)).view(-1, 3, 1, 1)
    contrast = _uniform(count, 0.6, 1.3, generator).view(-1, 1, 1, 1)
    grey = images.mean(1, keepdim=True)
    saturation = _uniform(count, 0.3, 1.5, generator).view(-1, 1, 1, 1)
    saturation = torch.where(_chosen(count, 0.15, generator), 0.0, saturation)
    images = (grey + (images - grey) * saturation) * gain
    images = (images - 0.5) * contrast + 0.5 + _uniform(count, -0.08, 0.08, generator).view(-1, 1, 1, 1)
    coarse = int(torch.randint(size // 5, size // 2, (1,), generator=generator))
    blurred = F.interpolate(images, size=(coarse, coarse), mode="bilinear", antialias=True)
    blurred = F.interpolate(blurred, size=(size, size), mode="bicubic")
    images = torch.where(_chosen(count, 0.3, generator), blurred, images)
    noise = _uniform(count, 0, 0.05, generator).view(-1, 1, 1, 1)
    return (images + noise * torch.randn(images.shape, generator=generator)).clamp(0, 1)
