"""Random batches of a dataset: which photo is drawn, which photo of the person is shown, which words are said."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from consistentid.dataset.samples import Rows
from consistentid.faces.regions import REGION_NAMES
from consistentid.prompting.facial_prompt import compose_facial_prompt, plain_ids
from consistentid.prompting.style import FacialPromptStyle
from consistentid.training.adapter.order import Order
from consistentid.training.adapter.photos import Photos
from consistentid.training.share import Share


@dataclass(frozen=True)
class Draft(Rows):
    """A batch before the frozen networks saw it.

    Attributes:
        target: pixels, or scaled latents when they were computed before.
        reference: the image encoder's pixel values of head and regions, or hidden states.
        ids_2: for SDXL's second text encoder.
        place: see `Framed.place`.
    """

    target: UInt8[Tensor, "b 3 h w"] | Float[Tensor, "b c h2 w2"]
    reference: Float[Tensor, "b m 3 s s"] | Float[Tensor, "b m t d"]
    present: Bool[Tensor, "b n"]
    identity: Float[Tensor, "b d"]
    foreground: Float[Tensor, "b 1 h2 w2"]
    regions: Float[Tensor, "b n h2 w2"]
    ids: Int[Tensor, "b l"]
    positions: Int[Tensor, "b n"]
    place: Int[Tensor, "b 6"]
    ids_2: Int[Tensor, "b l"] | None = None


@dataclass(frozen=True)
class Texts:
    """Captions -> token ids, by the same composition as in generation.

    Attributes:
        captions: of every record.
        facial_captions: likewise.
        tokenizers: one, or SDXL's two.
    """

    captions: Sequence[str]
    facial_captions: Sequence[str]
    tokenizers: tuple[Any, ...]
    style: FacialPromptStyle

    def __call__(self, index: int, *, with_caption: bool) -> tuple[list[Tensor], dict[str, int]]:
        """Ids for every tokenizer, and the region tokens."""
        if not with_caption:
            return [plain_ids(self.captions[index], one, self.style.length)[0] for one in self.tokenizers], {}
        composed = compose_facial_prompt(
            self.captions[index],
            caption=self.facial_captions[index],
            tokenizers=self.tokenizers,
            style=self.style,
        )
        ids = [one[0] for one in (composed.ids, composed.ids_2) if one is not None]
        return ids, dict(zip(composed.regions, composed.positions, strict=True))


@dataclass(frozen=True)
class Sampler:
    """Draws batches of `size` for one process; it is sent to the processes that prepare photos.

    Attributes:
        photos: where targets and references come from.
        rows: indices of the records that are trained on.
        people: of every record, who it shows.
        texts: of every record.
        buckets: of every record.
        size: photos of one pass on one process.
        other_photo: see `PhotoConfig`.
        without_caption: likewise.
        order_seed: of the order of the records.
    """

    photos: Photos
    rows: Int[np.ndarray, " m"]
    people: Sequence[str]
    texts: Texts
    buckets: Sequence[int]
    size: int
    other_photo: float
    without_caption: float
    order_seed: int

    def draw(self, share: Share) -> Draft:
        """One part of the batch of a step."""
        _, members = self._order(self.size * share.count).batch(share.step)
        whole = range(len(members))[share.rows(self.size)]
        rngs = [np.random.default_rng((share.seed, share.step, position)) for position in whole]
        return self.drafted([int(self.rows[members[position]]) for position in whole], rngs)

    def drafted(self, indices: Sequence[int], rngs: Sequence[np.random.Generator]) -> Draft:
        """These records, each with its own randomness."""
        variants = self.photos.variants
        targets = [self.photos.target(i, int(rng.integers(variants))) for i, rng in zip(indices, rngs, strict=True)]
        shown = [self._reference_of(i, rng) for i, rng in zip(indices, rngs, strict=True)]
        references = [self.photos.reference(i, int(r.integers(variants))) for i, r in zip(shown, rngs, strict=True)]
        said = [r.random() >= self.without_caption for r in rngs]
        texts = [self.texts(i, with_caption=with_caption) for i, with_caption in zip(indices, said, strict=True)]
        streams = [torch.stack(ids) for ids in zip(*(ids for ids, _ in texts), strict=True)]
        return Draft(
            target=torch.stack([one.content for one in targets]),
            reference=torch.stack([one.content for one in references]),
            present=torch.stack([one.present for one in references]),
            identity=torch.stack([one.identity for one in references]),
            foreground=torch.stack([one.foreground for one in targets]),
            regions=torch.stack([one.regions for one in targets]),
            ids=streams[0],
            positions=torch.tensor([[where.get(name, 0) for name in REGION_NAMES] for _, where in texts]),
            place=torch.stack([one.place for one in targets]),
            ids_2=streams[1] if len(streams) > 1 else None,
        )

    def _order(self, count: int) -> Order:
        return Order([self.buckets[row] for row in self.rows], count, self.order_seed)

    @cached_property
    def _photos_of(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for row in self.rows.tolist():
            found.setdefault(self.people[row], []).append(row)
        return found

    def _reference_of(self, index: int, rng: np.random.Generator) -> int:
        others = [row for row in self._photos_of.get(self.people[index], []) if row != index]
        return int(rng.choice(others)) if others and rng.random() < self.other_photo else index
