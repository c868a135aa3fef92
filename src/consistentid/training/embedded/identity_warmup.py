"""Warm-up of FacialEncoder and projector: their tokens must tell what the reference looks like.

The encoder's hidden states depend much more on the position in the face than on whose face it is, and one token is a
mean of 64 of them: with random weights, region tokens of different people differed by 0.0005 of their size, and the
U-Net, which pays little for ignoring them, never found them.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from consistentid.dataset.samples import Batch
from consistentid.faces.regions import REGION_NAMES
from consistentid.training.embedded.sampler import StoreSampler
from consistentid.training.step import TrainingModels

_SIDE = 8  # of the averaged latents that the heads read from the tokens


@dataclass
class IdentityTask:
    """Linear regression of the identity embedding and of the person's averaged latents, from the tokens alone.

    Attributes:
        models: the adapter is attached; its FacialEncoder and projector learn.
        sampler: without strangers, so that reference and target show one person.
        batch_size: samples of a step.
    """

    models: TrainingModels
    sampler: StoreSampler
    batch_size: int
    heads: nn.ModuleDict = field(init=False)

    def __post_init__(self) -> None:
        config = self.models.adapter.config
        size = config.identity_dim + self.sampler.latents.shape[2] * _SIDE**2
        self.heads = nn.ModuleDict({name: nn.Linear(config.text_dim, size) for name in REGION_NAMES})
        self.heads["identity"] = nn.Linear(config.num_identity_tokens * config.text_dim, size)

    @property
    def modules(self) -> dict[str, nn.Module]:
        """See `Task.modules`."""
        adapter = self.models.adapter
        return {"facial_encoder": adapter.facial_encoder, "projector": adapter.projector, "heads": self.heads}

    def losses(self, generator: torch.Generator) -> dict[str, Tensor]:
        """See `Task.losses`; 1 is as good as knowing nothing."""
        batch = self.sampler.draw(self.batch_size, generator)
        wanted = self._wanted(batch)
        told = torch.rand(len(batch.ids), 1, generator=generator) < 0.5  # else the whole image alone must tell
        tokens = self.models.adapter.identity_tokens(batch.identity_embedding * told, batch.whole_features)
        parts = {"whole": _error(self.heads["identity"](tokens.flatten(1)), wanted)}
        with torch.no_grad():
            text = self.models.text_encoder(batch.ids).last_hidden_state
        fused = self.models.adapter.facial_encoder(text, batch.region_features, batch.positions, batch.valid)
        for index, name in enumerate(REGION_NAMES):
            rows = torch.nonzero(batch.valid[:, index])[:, 0]
            if len(rows):
                parts[name] = _error(self.heads[name](fused[rows, batch.positions[rows, index]]), wanted[rows])
        return {"loss": torch.stack(list(parts.values())).mean(), **parts}

    def _wanted(self, batch: Batch) -> Float[Tensor, "b k"]:
        """Standardised over the people of the batch: what they have in common is not asked for."""
        person = F.adaptive_avg_pool2d(batch.latents * batch.foreground, _SIDE).flatten(1)
        parts = (batch.target_identity, person)
        return torch.cat([(part - part.mean(0)) / part.std(0).clamp(min=1e-2) for part in parts], dim=1)


def _error(found: Float[Tensor, "b k"], wanted: Float[Tensor, "b k"]) -> Tensor:
    return F.mse_loss(found.float(), wanted)
