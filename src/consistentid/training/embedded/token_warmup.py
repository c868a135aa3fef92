"""Warm-up of the FacialEncoder: region tokens say what the identity tokens say.

The U-Net reads identity tokens alone, region tokens among 77 others: at first they count a tenth as much, and it learns
to ignore what it cannot read. With any other start, 1,500 steps of training left region tokens without effect. The key
and value layers of the identity tokens begin as those of the text, so a region token that equals an identity token is
understood from the start.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from consistentid.dataset.samples import Batch
from consistentid.faces.regions import REGION_NAMES
from consistentid.training.embedded.sampler import StoreSampler
from consistentid.training.step import TrainingModels

_FACE = "face"
_PARTS = 0.3  # weight of the regions that tell little of who it is, against the face's 1


@dataclass
class TokenTask:
    """Fused tokens of every region towards the mean of the person's identity tokens.

    Attributes:
        models: the adapter is attached; its FacialEncoder learns.
        sampler: without strangers.
        batch_size: samples of a step.
    """

    models: TrainingModels
    sampler: StoreSampler
    batch_size: int

    @property
    def modules(self) -> dict[str, nn.Module]:
        """See `Task.modules`."""
        return {"facial_encoder": self.models.adapter.facial_encoder}

    def losses(self, generator: torch.Generator) -> dict[str, Tensor]:
        """See `Task.losses`; a region's loss of 1 is as good as knowing nothing."""
        batch = self.sampler.draw(self.batch_size, generator)
        with torch.no_grad():
            text = self.models.text_encoder(batch.ids).last_hidden_state
            wanted = self._wanted(batch)
        spread = (wanted - wanted.mean(0)).square().mean()
        fused = self.models.adapter.facial_encoder(text, batch.region_features, batch.positions, batch.valid).float()
        parts = {}
        for index, name in enumerate(REGION_NAMES):
            rows = torch.nonzero(batch.valid[:, index])[:, 0]
            if len(rows):
                parts[name] = F.mse_loss(fused[rows, batch.positions[rows, index]], wanted[rows]) / spread
        total = torch.stack([part * (1.0 if name == _FACE else _PARTS) for name, part in parts.items()]).sum()
        return {"loss": total, **parts}

    def _wanted(self, batch: Batch) -> Float[Tensor, "b d"]:
        tokens = self.models.adapter.identity_tokens(batch.target_identity, batch.whole_features).float().mean(1)
        return F.layer_norm(tokens, tokens.shape[1:])
