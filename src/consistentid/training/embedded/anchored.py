"""Images of regions are listened to, and all else stays as it was when the stage began.

The other losses that teach region tokens cost likeness, because nothing says what is to stay. Here a frozen copy of the
models predicts, what the prior expects of the images is added, and the models learn to predict the sum.
"""

from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from consistentid.dataset.samples import Batch, Rows
from consistentid.faces.regions import REGION_NAMES
from consistentid.training.conditions import Kept
from consistentid.training.embedded.config import AnchoredStage
from consistentid.training.embedded.diffusion import trained_modules
from consistentid.training.embedded.sampler import StoreSampler
from consistentid.training.identity_prior import IdentityPrior
from consistentid.training.losses import clean_latents, signal_to_noise
from consistentid.training.prediction import TrainingModels, predict
from consistentid.training.share import Share
from consistentid.training.step import spread

_LARGEST_WEIGHT = 1.2  # of a token; that of portraits is at most `AdapterConfig.region_strength` x 1.5
_STRANGER_FROM = 0.75  # share of the noise schedule: below, the noisy latents show somebody else
_MOST = 3.0  # x the median change: of images of which more is expected, the prior has not seen the like
_EMPHASIS = 3.0  # what errors count more in the places of the regions that are to be seen
_CLEAREST = 5.0  # signal to noise from which errors count no more


@dataclass(frozen=True)
class Asked(Rows):
    """What is predicted, for b samples.

    Attributes:
        noisy: latents.
        timesteps: of these.
        kept: which conditions are told.
        weights: of the region tokens.
    """

    noisy: Float[Tensor, "b c h w"]
    timesteps: Int[Tensor, " b"]
    kept: Kept
    weights: Float[Tensor, "b n"]

    @classmethod
    def draw(cls, batch: Batch, generator: torch.Generator, *, models: TrainingModels, stage: AnchoredStage) -> Self:
        """At random; strangers at high noise."""
        count, steps = len(batch.latents), models.scheduler.config.num_train_timesteps
        shares = spread(count, generator)
        shares = torch.where(batch.stranger, _STRANGER_FROM + (1 - _STRANGER_FROM) * shares, shares)
        timesteps = (shares * steps).long().clamp(max=steps - 1)
        noise = torch.randn(batch.latents.shape, generator=generator)
        kept = Kept.draw(count, len(REGION_NAMES), generator, config=stage.drop).of(batch)
        weights = _LARGEST_WEIGHT * torch.rand(kept.regions.shape, generator=generator)
        return cls(models.scheduler.add_noise(batch.latents, noise, timesteps), timesteps, kept, weights)


@dataclass
class AnchoredTask:
    """Random batches.

    Attributes:
        models: learn; `choose_trained` said which parts.
        sampler: draws the batches.
        stage: says how much of which region's image is to be seen.
        prior: says what the images show; its appearance is not None.
        start: the models as they were, frozen.
    """

    models: TrainingModels
    sampler: StoreSampler
    stage: AnchoredStage
    prior: IdentityPrior
    start: TrainingModels = field(init=False)

    def __post_init__(self) -> None:
        self.start = deepcopy(self.models)
        for module in trained_modules(self.start).values():
            module.requires_grad_(False)

    @property
    def modules(self) -> dict[str, nn.Module]:
        """See `Task.modules`."""
        return trained_modules(self.models)

    def losses(self, share: Share) -> dict[str, Tensor]:
        """See `Task.losses`; `shown` is the share of the added change that is predicted."""
        generator, device = share.generator(), self.models.unet.device
        batch = self.sampler.draw(self.stage.batch_size, generator)
        asked = Asked.draw(batch, generator, models=self.models, stage=self.stage)
        batch, asked = batch.to(device), asked.to(device)
        with torch.no_grad():
            before = _clean(self.start, batch, replace(asked, kept=self._known(asked.kept)))
        added, clean = self._added(batch, asked), _clean(self.models, batch, asked)
        clearness = signal_to_noise(self.models.scheduler, asked.timesteps).clamp(max=_CLEAREST)
        counts = (1 + clearness).view(-1, 1, 1, 1) * (1 + _EMPHASIS * self._places(asked.kept))
        shown = ((clean.detach() - before) * added).sum() / added.square().sum().clamp(min=1e-9)
        return {"loss": (counts * (clean - before - added).square()).mean(), "shown": shown}

    def _known(self, kept: Kept) -> Kept:
        """Without the regions whose tokens said nothing when the stage began."""
        new = torch.tensor([name in self.stage.new for name in REGION_NAMES], device=kept.regions.device)
        return replace(kept, regions=kept.regions & ~new)

    def _added(self, batch: Batch, asked: Asked) -> Float[Tensor, "b c h w"]:
        """What the images change in the clean latents that the prior expects."""
        assert batch.told is not None  # so the sampler
        assert self.prior.appearance is not None  # so the class
        told = asked.kept.told(batch.told)
        assert told.appearance is not None  # so the sampler
        assert told.appears is not None
        shares = (self._shown(asked.weights) * asked.weights)[..., None]
        seen = replace(told, appearance=torch.lerp(self.prior.appearance.centre, told.appearance, shares))
        unseen = replace(told, appears=torch.zeros_like(told.appears))
        alphas = self.models.scheduler.alphas_cumprod.to(asked.timesteps.device)[asked.timesteps]
        expected = [self.prior.posterior(asked.noisy, alphas, one) for one in (seen, unseen)]
        change = expected[0] - expected[1]
        sizes = change.norm(dim=1, keepdim=True)
        return (change * (_MOST * sizes.median() / sizes.clamp(min=1e-6)).clamp(max=1)).view_as(asked.noisy)

    def _places(self, kept: Kept) -> Float[Tensor, "b 1 h w"]:
        """Where images of the kept regions are to be seen, 0..1."""
        height, width = self.sampler.latents.shape[-2:]
        places = self.prior.regression.places.view(len(REGION_NAMES), -1, height, width)[:, 0]
        wanted = kept.regions & (self._shown(places) > 0)
        return torch.einsum("bn,nhw->bhw", wanted.to(places), places).clamp(max=1)[:, None]

    def _shown(self, like: Tensor) -> Float[Tensor, " n"]:
        return torch.tensor([self.stage.shown.get(name, 0.0) for name in REGION_NAMES]).to(like)


def _clean(models: TrainingModels, batch: Batch, asked: Asked) -> Float[Tensor, "b c h w"]:
    models.adapter.set_scale(asked.kept.scale)
    prediction = predict(models, batch, asked.kept, asked.noisy, asked.timesteps, weights=asked.weights)
    return clean_latents(models.scheduler, prediction, asked.noisy, asked.timesteps)
