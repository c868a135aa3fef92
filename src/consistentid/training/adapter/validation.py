"""What is measured on held-out people while an adapter is trained: the same photos, noise and timesteps every time."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from consistentid.dataset.samples import Batch
from consistentid.identity.attention_maps import AttentionRecorder
from consistentid.training.adapter.sampler import Sampler
from consistentid.training.adapter.task import FrozenEncoders
from consistentid.training.conditions import Draws, Kept
from consistentid.training.losses import noise_losses
from consistentid.training.prediction import TrainingModels, predict
from consistentid.training.step import attention_losses, map_masks, noised, shown_regions, spread

_SEED = 0


@dataclass(frozen=True)
class HeldOut:
    """Photos of people who are not trained on.

    Attributes:
        sampler: of the dataset; buckets do not matter here.
        indices: of the records.
        device: where the networks are.
    """

    models: TrainingModels
    encoders: FrozenEncoders
    sampler: Sampler
    indices: tuple[int, ...]
    device: torch.device

    @torch.no_grad()
    def measure(self) -> dict[str, Tensor]:
        """Means over the photos: noise loss, eq. 1, and how much of the attention is inside each region."""
        parts: list[dict[str, Tensor]] = []
        for index in self.indices:  # one by one: photos of different proportions do not stack
            draft = self.sampler.drafted([index], [np.random.default_rng((_SEED, index))])
            batch = self.encoders.completed(draft.to(self.device))
            parts.append(self._measured(batch, self._draws(batch, index)))
        return {name: torch.stack([part[name] for part in parts]).nanmean() for name in parts[0]}

    def _draws(self, batch: Batch, index: int) -> Draws:
        generator = torch.Generator().manual_seed(index)
        steps = self.models.scheduler.config.num_train_timesteps
        yes = torch.ones(len(batch), dtype=torch.bool)
        kept = Kept(yes, torch.ones(batch.valid.shape, dtype=torch.bool), yes, fused=True, scale=1.0)
        noise = torch.randn(batch.latents.shape, generator=generator)
        timesteps = (spread(len(batch), generator) * steps).long()
        return Draws(noise, timesteps, kept, yes, torch.zeros(len(batch), 3)).to(self.device)

    def _measured(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        models, kept = self.models, draws.kept.of(batch)
        assert models.recorder is not None
        noisy, target = noised(models.scheduler, batch.latents, draws.timesteps, draws.noise)
        models.adapter.set_scale(1.0)
        with models.recorder.recording():
            prediction = predict(models, batch, kept, noisy, draws.timesteps)
        return {
            "held_out/noise": noise_losses(prediction, target, torch.ones_like(batch.foreground)).mean(),
            "held_out/localisation": attention_losses(models.recorder, batch, kept.regions)["localisation"],
            "held_out/attention_inside": attention_inside(models.recorder, batch, kept.regions),
        }


def attention_inside(recorder: AttentionRecorder, batch: Batch, valid: Bool[Tensor, "b n"]) -> Float[Tensor, ""]:
    """Share of each region token's attention that falls into its own region: mean over layers, heads and regions.

    Not a number when no region is valid.
    """
    valid = valid & shown_regions(batch)
    layers = []
    for maps in recorder.maps(batch.positions):
        inside = map_masks(batch.region_masks, maps.shape[2])[:, None].transpose(2, 3)  # b 1 q n
        layers.append(((maps * inside).sum(2) / maps.sum(2).clamp(min=1e-12)).mean(1)[valid].mean())
    return torch.stack(layers).mean()
