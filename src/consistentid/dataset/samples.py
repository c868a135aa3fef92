"""A batch of training: tensors only, so that the step does not know where they came from."""

from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Rows:
    """Frozen dataclasses whose fields are tensors with one row per sample, other such records, or None."""

    def rows(self, chosen: Bool[Tensor, " b"] | Int[Tensor, " k"] | slice) -> Self:
        """The chosen samples."""
        return self._map(lambda value: value.rows(chosen) if isinstance(value, Rows) else value[chosen])

    def to(self, device: torch.device | str) -> Self:
        """All tensors on another device."""
        return self._map(lambda value: value.to(device))

    def _map(self, change: Any) -> Self:
        values = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        return type(self)(**{name: value if value is None else change(value) for name, value in values.items()})


@dataclass(frozen=True)
class Told(Rows):
    """What the U-Net is told of the person to draw, as the identity prior sees it.

    Attributes:
        identity: embedding of the person.
        words: the stated word of each attribute, counted from 1; 0 where none is stated.
        regions: embedding of the person whose region is to be drawn, for each region.
        appearance: what the region's image shows, see `region_appearance`; None: nothing is told.
        appears: whether it does.
        mouth_words: as `words`, what the image of the mouth shows; it holds where nothing is stated. None: nothing.
    """

    identity: Float[Tensor, "b d"]
    words: Int[Tensor, "b a"]
    regions: Float[Tensor, "b n d"]
    appearance: Float[Tensor, "b n k"] | None = None
    appears: Bool[Tensor, "b n"] | None = None
    mouth_words: Int[Tensor, "b a"] | None = None

    @property
    def mixed(self) -> Bool[Tensor, "b n"]:
        """Which regions are somebody else's."""
        differs: Tensor = self.regions != self.identity[:, None]
        return differs.any(2)

    @classmethod
    def of_people(cls, identity: Float[Tensor, "b d"], words: Int[Tensor, "b a"], *, regions: int) -> Self:
        """All regions are the person's own."""
        return cls(identity, words, identity[:, None].expand(-1, regions, -1))


@dataclass(frozen=True)
class Looks(Rows):
    """How the regions to draw look to FGIS's embedder.

    Attributes:
        embeddings: of each region in its box, with what is around it, and in its outline.
        boxes: around it, see `face_chips.region_box`.
        known: whether it is to look so.
    """

    embeddings: Float[Tensor, "b n 2 k"]
    boxes: Float[Tensor, "b n 4"]
    known: Bool[Tensor, "b n"]


@dataclass(frozen=True)
class Sdxl(Rows):
    """What SDXL is told besides.

    Attributes:
        ids: facial prompts, tokenised for the second text encoder.
        time_ids: original height and width, top and left of the crop, target height and width, in pixels.
    """

    ids: Int[Tensor, "b l"]
    time_ids: Float[Tensor, "b 6"]


@dataclass(frozen=True)
class Batch(Rows):
    """b samples with n = 5 regions.

    Attributes:
        latents: clean latents of the target portraits.
        ids: tokenised facial prompts.
        positions: region tokens in `ids`, in the order of `REGION_NAMES`; 0 where invalid.
        valid: whether the region's word is marked and the reference shows the region.
        identity_embedding: of the reference.
        whole_features: hidden states of the reference's head.
        region_features: hidden states of the reference's regions.
        foreground: the person in the target, at latent resolution.
        region_masks: the regions in the target, at latent resolution.
        stranger: whether the reference shows somebody else than the latents; these only follow the identity prior.
            The first of them has the latents of the first sample that is no stranger, and so on.
        told: of the person to draw, for the identity prior; None: there is no prior.
        looks: of the regions to draw, for the loss that compares them; None: there is none.
        sdxl: None for the other base models.
    """

    latents: Float[Tensor, "b c h w"]
    ids: Int[Tensor, "b l"]
    positions: Int[Tensor, "b n"]
    valid: Bool[Tensor, "b n"]
    identity_embedding: Float[Tensor, "b d"]
    whole_features: Float[Tensor, "b t di"]
    region_features: Float[Tensor, "b n t di"]
    foreground: Float[Tensor, "b 1 h w"]
    region_masks: Float[Tensor, "b n h w"]
    stranger: Bool[Tensor, " b"]
    told: Told | None = None
    looks: Looks | None = None
    sdxl: Sdxl | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def twins(self) -> Int[Tensor, " b"]:
        """For each stranger the sample with the same latents that is none; every other sample is its own twin."""
        twins = torch.arange(len(self.stranger), device=self.stranger.device)
        twins[self.stranger] = torch.nonzero(~self.stranger)[: int(self.stranger.sum()), 0]
        return twins
