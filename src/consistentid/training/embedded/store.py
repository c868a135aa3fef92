"""Everything the diffusion stages read, computed once: target crops with captions, and references with features."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from consistentid.dataset.record import FGIDRecord
from consistentid.dataset.selection import Selection
from consistentid.faces.attributes import BACKGROUND_COLOURS, HAIR_COLOURS, measure_attributes
from consistentid.faces.crops import Square, align_face, crop_square, mirror_landmarks
from consistentid.faces.detection import DetectedFace
from consistentid.faces.parsing import FaceParser
from consistentid.faces.regions import REGION_NAMES, region_masks
from consistentid.identity.dlib_image_encoder import DlibImageEncoder
from consistentid.identity.reference import aligned_reference
from consistentid.training.augment import (
    Portrait,
    jitter_colour,
    paste_mouth,
    recolour_hair,
    replace_background,
)

logger = logging.getLogger(__name__)

SIZE = 128  # px of a target
LATENT = SIZE // 8
_LARGEST = 640  # px of the square that references are cut from; smaller ones keep the pixels of the photo
EXPRESSIONS = (None, "smiling", "serious")
HAIRS = (None, *HAIR_COLOURS, "bald")
BACKGROUNDS = (None, *BACKGROUND_COLOURS)
GENDERS = (None, "man", "woman")
VOCABULARY = (GENDERS, EXPRESSIONS, HAIRS, BACKGROUNDS)  # of the columns of `Targets.words`
PRIOR_WORDS = [1, 2, 3]  # columns that the identity prior leaves to the text: expression, hair and background
MIXED_REGIONS = tuple(name for name in REGION_NAMES if name != "face")  # may show somebody else than the face does


@dataclass(frozen=True)
class Targets:
    """What the model learns to draw: n photos x v variants.

    Attributes:
        images: RGB crops.
        foreground: the person, at latent resolution.
        regions: masks of the five regions, at latent resolution.
        words: indices into `VOCABULARY`.
        donors: index of the photo that regions come from, see `composites`.
        mixed: which regions do; none in the first variants.
    """

    images: UInt8[Tensor, "n v 128 128 3"]
    foreground: Bool[Tensor, "n v 16 16"]
    regions: Bool[Tensor, "n v 5 16 16"]
    words: UInt8[Tensor, "n v 4"]
    donors: Int[Tensor, "n v"]
    mixed: Bool[Tensor, "n v 5"]

    @property
    def plain(self) -> int:
        """Number of the variants that show one photo each."""
        return int((~self.mixed.any(2)).all(0).sum())

    def row(self, photo: int, variant: int) -> "Targets":
        """One target, without the dimensions of photos and variants."""
        return Targets(*(getattr(self, field.name)[photo, variant] for field in fields(self)))

    def joined(self, rows: Sequence[Sequence["Targets"]]) -> "Targets":
        """With further variants of every photo, given one by one."""
        columns = []
        for field in fields(self):
            added = torch.stack([torch.stack([getattr(one, field.name) for one in row]) for row in rows])
            columns.append(torch.cat([getattr(self, field.name), added], 1))
        return Targets(*columns)


@dataclass(frozen=True)
class References:
    """What the model is told about the person: n photos x r variants; the second half contradicts the target.

    Attributes:
        identity: the recogniser's embedding.
        whole: hidden states of the head.
        regions: hidden states of each region, zero where `present` is false.
    """

    identity: Float[Tensor, "n r 128"]
    whole: Float[Tensor, "n r 64 448"]
    regions: Float[Tensor, "n r 5 64 448"]
    present: Bool[Tensor, "n r 5"]


def save(store: Targets | References, path: Path) -> None:
    """Write a store as safetensors, whole or not at all."""
    save_tensors({field.name: getattr(store, field.name) for field in fields(store)}, path)


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write tensors as safetensors, whole or not at all."""
    temporary = path.with_suffix(".tmp")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)
    temporary.rename(path)


def load_targets(path: Path) -> Targets:
    """Read what `save` wrote."""
    return Targets(**load_file(path))


def load_references(path: Path) -> References:
    """Read what `save` wrote."""
    return References(**load_file(path))


def open_portrait(
    record: FGIDRecord, square: Square, size: int, *, label_map: UInt8[np.ndarray, "h w"] | None = None
) -> Portrait:
    """The square of a record's photo and of its label map, or of another label map of the photo."""
    photo = crop_square(record.open_photo(), square, size)
    whole = record.open_label_map() if label_map is None else label_map
    return Portrait(np.asarray(photo), np.asarray(crop_square(Image.fromarray(whole), square, size, nearest=True)))


def build_targets(first: int, records: Selection, *, variants: int, seed: int) -> Targets:
    """Targets of a slice of the records that begins at index `first`.

    Faces lie in one place but for small shifts; every second one is mirrored, and from the third variant on hair and
    backgrounds change.
    """
    rows = [
        [
            (*_target(record, variant, np.random.default_rng((seed, index, variant))), *_of(index))
            for variant in range(variants)
        ]
        for index, record in enumerate(records, first)
    ]
    stacked = [[torch.stack([row[v][k] for v in range(variants)]) for row in rows] for k in range(6)]
    return Targets(*(torch.stack(column) for column in stacked))


def _of(photo: int) -> tuple[Tensor, Tensor]:
    """Donor and mixed regions of a target that shows one photo."""
    return torch.tensor(photo), torch.zeros(len(REGION_NAMES), dtype=torch.bool)


def _target(record: FGIDRecord, variant: int, rng: np.random.Generator) -> tuple[Tensor, ...]:
    square = Square.on_face(np.array(record.landmarks)).scaled(
        rng.uniform(0.97, 1.03), shift=tuple(rng.normal(0, 0.006, 2))
    )
    portrait = open_portrait(record, square, SIZE)
    measured = measure_attributes(portrait.photo, portrait.label_map)
    hair, background = measured.hair, measured.background
    if variant % 2:
        portrait = portrait.mirrored()
    if variant >= 2 and hair not in (None, "bald") and rng.random() < 0.6:
        hair = str(rng.choice(list(HAIR_COLOURS)))
        portrait = recolour_hair(portrait, hair, rng)
    if variant >= 2 and rng.random() < 0.75:
        background = str(rng.choice(list(BACKGROUND_COLOURS)))
        portrait = replace_background(portrait, background, rng)
    words = (
        GENDERS.index(record.gender or record.gender_estimated),
        EXPRESSIONS.index(measured.expression),
        HAIRS.index(hair),
        BACKGROUNDS.index(background),
    )
    masks = region_masks(portrait.label_map)
    none = np.zeros((SIZE, SIZE), bool)
    return (
        torch.from_numpy(portrait.photo.copy()),
        _to_latent(~np.isin(portrait.label_map, (0,))),
        torch.stack([_to_latent(masks.get(name, none)) for name in REGION_NAMES]),
        torch.tensor(words, dtype=torch.uint8),
    )


def _to_latent(mask: Bool[np.ndarray, "128 128"]) -> Bool[Tensor, "16 16"]:
    share = torch.from_numpy(mask).float().view(LATENT, 8, LATENT, 8).mean((1, 3))
    return share > (0.3 if mask.mean() > 0.02 else 0.05)


@dataclass(frozen=True)
class Donors:
    """Aligned faces whose mouths contradict another photo's expression."""

    smiling: list[UInt8[np.ndarray, "150 150 3"]]
    serious: list[UInt8[np.ndarray, "150 150 3"]]

    @classmethod
    def choose(cls, records: Selection, *, count: int = 100) -> "Donors":
        """The first photos of each expression."""
        found: dict[str, list[np.ndarray]] = {"smiling": [], "serious": []}
        for record in records:
            faces = found.get(_expression(record) or "", [])
            if len(faces) < count:
                aligned = align_face(record.open_photo(), np.array(record.landmarks), DlibImageEncoder.image_size)
                faces.append(np.asarray(aligned))
        return cls(found["smiling"], found["serious"])

    def opposite(self, expression: str | None, rng: np.random.Generator) -> np.ndarray | None:
        """A face of the other expression; None when no photo shows it."""
        faces = self.serious if expression == "smiling" else self.smiling
        return faces[rng.integers(len(faces))] if faces else None


def build_references(
    first: int, records: Selection, *, variants: int, seed: int, donors: Donors, parser: FaceParser
) -> References:
    """References of a slice of the records that begins at index `first`; variant 0 is the photo as it is.

    The second half of the variants contradicts the target in hair and expression, not in who it is. Regions are where
    the parser says, as in generation: cut out by the record's label map, which may come from elsewhere, eyes look more
    unlike those than the eyes of two people do (decision 27).
    """
    encoder = DlibImageEncoder()
    parts: list[list[Tensor]] = []
    for index, record in enumerate(records, first):
        label_map = parser.parse(np.asarray(record.open_photo()), _face(record))
        for variant in range(variants):
            rng = np.random.default_rng((seed, index, variant))
            donor = donors.opposite(_expression(record), rng) if variant >= variants // 2 else None
            parts.append(encode_reference(*_reference(record, label_map, variant, rng, donor), encoder))
    stacked = [torch.stack([part[k] for part in parts]).unflatten(0, (len(records), variants)) for k in range(4)]
    references = References(*stacked)
    references.identity[:, variants // 2 :] = references.identity[:, : variants - variants // 2].clone()
    return references


def _face(record: FGIDRecord) -> DetectedFace:
    return DetectedFace(record.box, np.array(record.landmarks), np.array(record.identity_embedding), 1.0)


def _expression(record: FGIDRecord) -> str | None:
    portrait = open_portrait(record, Square.around(record.box), SIZE)
    return measure_attributes(portrait.photo, portrait.label_map).expression


def _reference(
    record: FGIDRecord, label_map: np.ndarray, variant: int, rng: np.random.Generator, donor: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    around = Square.around(record.box, scale=2.2)  # in whole pixels nothing is resampled
    square = Square(round(around.left), round(around.top), round(around.side))
    size = min(int(square.side), _LARGEST)
    portrait = open_portrait(record, square, size, label_map=label_map)
    landmarks = square.points(np.array(record.landmarks), size)
    if variant % 2:
        portrait, landmarks = portrait.mirrored(), mirror_landmarks(landmarks, size)
    if variant == 0:
        return portrait.photo, portrait.label_map, landmarks
    photo = jitter_colour(portrait.photo, rng)
    if donor is not None:
        photo = recolour_hair(Portrait(photo, portrait.label_map), str(rng.choice(list(HAIR_COLOURS))), rng).photo
        photo = paste_mouth(photo, landmarks, donor)
    moved = landmarks + rng.normal(0, 0.012 * np.ptp(landmarks[:, 0]), landmarks.shape)
    return photo, portrait.label_map, moved.astype(np.float32)


def encode_reference(
    photo: UInt8[np.ndarray, "h w 3"],
    label_map: UInt8[np.ndarray, "h w"],
    landmarks: Float[np.ndarray, "5 2"],
    encoder: DlibImageEncoder,
) -> list[Tensor]:
    """Identity embedding, hidden states of head and regions, and which regions are present."""
    reference = aligned_reference(photo, label_map, landmarks)
    face = align_face(Image.fromarray(photo), landmarks, encoder.image_size)
    pixels = encoder.pixels([reference.whole, *reference.regions.values()])
    hidden = encoder.encode(pixels).half()
    regions = torch.zeros(len(REGION_NAMES), *hidden.shape[1:], dtype=hidden.dtype)
    present = torch.tensor([name in reference.regions for name in REGION_NAMES])
    regions[present] = hidden[1:]
    with torch.no_grad():
        identity = encoder.network(encoder.pixels([face]))[0]
    return [identity, hidden[0], regions, present]


Store = TypeVar("Store", Targets, References)


def joined(parts: list[Store]) -> Store:
    """Stores of parts of the photos as one."""
    columns = {field.name: torch.cat([getattr(part, field.name) for part in parts]) for field in fields(parts[0])}
    return type(parts[0])(**columns)
