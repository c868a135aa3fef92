"""The task of training an adapter: batches through the frozen networks and `training_step`."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from consistentid.dataset.samples import Batch, Sdxl
from consistentid.errors import ConsistentIDError
from consistentid.identity.image_encoder import ImageEncoder
from consistentid.training.adapter.base import BaseModel
from consistentid.training.adapter.sampler import Draft, Sampler
from consistentid.training.prediction import TrainingModels
from consistentid.training.share import Share
from consistentid.training.step import draw_step, training_step
from consistentid.training.step_config import StepConfig


@dataclass(frozen=True)
class FrozenEncoders:
    """The networks that turn pictures into latents and features; they are not trained."""

    base: BaseModel
    image_encoder: ImageEncoder

    def completed(self, draft: Draft) -> Batch:
        """A batch for the step; what was computed before is not computed again."""
        features = self.features(draft.reference, draft.present) if draft.reference.ndim == 5 else draft.reference
        sdxl = None if draft.ids_2 is None else Sdxl(draft.ids_2, draft.place.float())
        return Batch(
            latents=self.base.latents(draft.target) if draft.target.dtype == torch.uint8 else draft.target.float(),
            ids=draft.ids,
            positions=draft.positions,
            valid=draft.present & (draft.positions > 0),
            identity_embedding=draft.identity,
            whole_features=features[:, 0].float(),
            region_features=features[:, 1:].float(),
            foreground=draft.foreground,
            region_masks=draft.regions,
            stranger=torch.zeros(len(draft.ids), dtype=torch.bool, device=draft.ids.device),
            sdxl=sdxl,
        )

    def features(self, pixels: Float[Tensor, "b m 3 s s"], present: Tensor) -> Float[Tensor, "b m t d"]:
        """Hidden states of head and regions; zeros for absent regions."""
        shown = torch.cat([torch.ones_like(present[:, :1]), present], dim=1)
        hidden = self.image_encoder.encode(pixels[shown])
        features = hidden.new_zeros(*pixels.shape[:2], *hidden.shape[1:])
        features[shown] = hidden
        return features


@dataclass
class AdapterTask:
    """Batches of a sampler.

    Attributes:
        models: the adapter is attached, the recorder entered.
        encoders: frozen.
        sampler: draws drafts.
        config: of the step.
        device: where the networks are.
        workers: processes that draw ahead.
    """

    models: TrainingModels
    encoders: FrozenEncoders
    sampler: Sampler
    config: StepConfig
    device: torch.device
    workers: int = 0
    _drafts: "_Drafts | None" = field(default=None, repr=False)

    @property
    def modules(self) -> dict[str, nn.Module]:
        """See `Task.modules`; projector, k/v branch and LoRAs live inside the U-Net."""
        return {"unet": self.models.unet, "facial_encoder": self.models.adapter.facial_encoder}

    def losses(self, share: Share) -> dict[str, Tensor]:
        """See `Task.losses`."""
        if self._drafts is None or self._drafts.awaited != share:
            self._drafts = _Drafts(self.sampler, share, self.workers)
        batch = self.encoders.completed(next(self._drafts).to(self.device))
        whole = (len(batch) * share.count, *batch.latents.shape[1:])
        draws = draw_step(whole, self.models.scheduler, share.common_generator(), config=self.config)
        draws = draws.rows(share.rows(len(batch))).to(self.device)
        return training_step(self.models, batch, draws, config=self.config).named()


class _Drafts(Iterator[Draft]):
    """Drafts of a process's shares, drawn ahead in other processes."""

    def __init__(self, sampler: Sampler, first: Share, workers: int) -> None:
        self.awaited = first
        source: Any = _SharesAsDataset(sampler, first)
        self._loader = iter(DataLoader(source, batch_size=None, sampler=itertools.count(), num_workers=workers))

    def __next__(self) -> Draft:
        self.awaited = self.awaited.after(1)
        draft: Draft | ConsistentIDError = next(self._loader)
        if isinstance(draft, ConsistentIDError):
            raise draft
        return draft


class _SharesAsDataset(Dataset[Draft | ConsistentIDError]):
    """Refusals are returned, because a worker's traceback would be put before what is raised."""

    def __init__(self, sampler: Sampler, first: Share) -> None:
        self.sampler, self.first = sampler, first

    def __getitem__(self, index: int) -> Draft | ConsistentIDError:
        try:
            return self.sampler.draw(self.first.after(index))
        except ConsistentIDError as error:
            return error
