"""Warm-up of the FacialEncoder: the face's token says what the identity tokens say, and is looked at.

The U-Net reads identity tokens alone, region tokens among 77 others: at first they counted a hundredth as much, and in
1,500 steps of training it did not find them. The key and value layers of the identity tokens begin as those of the
text, so a region token that differs between people as identity tokens do is understood from the start.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from consistentid.dataset.samples import Batch
from consistentid.faces.regions import REGION_NAMES
from consistentid.identity.attention_maps import AttentionRecorder, cross_attention_layers
from consistentid.training.embedded.sampler import StoreSampler
from consistentid.training.prediction import TrainingModels, run_unet
from consistentid.training.share import Share

_FACE = REGION_NAMES.index("face")
_PARTS = 0.3 / (len(REGION_NAMES) - 1)  # weight of each other region, which tells little of who it is
_LOOK = 0.7  # weight of being looked at
_SHARE = 0.35  # of the attention that the face's token shall have


@dataclass
class TokenTask:
    """Fused tokens of every region towards the mean of the person's identity tokens.

    Attributes:
        models: the adapter is attached; its FacialEncoder learns, the U-Net stays.
        sampler: without strangers.
        batch_size: samples of a step.
        recorder: of all cross-attention.
    """

    models: TrainingModels
    sampler: StoreSampler
    batch_size: int
    recorder: AttentionRecorder = field(init=False)

    def __post_init__(self) -> None:
        self.models.unet.requires_grad_(False)
        self.recorder = AttentionRecorder(self.models.unet, cross_attention_layers(self.models.unet))

    @property
    def modules(self) -> dict[str, nn.Module]:
        """See `Task.modules`."""
        return {"facial_encoder": self.models.adapter.facial_encoder}

    def losses(self, share: Share) -> dict[str, Tensor]:
        """See `Task.losses`; a region's loss of 1 is as good as knowing nothing, `look` of 0 is attention enough."""
        generator = share.generator()
        batch = self.sampler.draw(self.batch_size, generator)
        with torch.no_grad():
            text = self.models.text_encoders[0](batch.ids).last_hidden_state
            wanted = self._wanted(batch)
        fused = self.models.adapter.facial_encoder(text, batch.region_features, batch.positions, batch.valid)
        parts = {}
        for index, name in enumerate(REGION_NAMES):
            rows = torch.nonzero(batch.valid[:, index])[:, 0]
            if len(rows) > 1:
                parts[name] = _error(fused[rows, batch.positions[rows, index]].float(), wanted[rows])
        look = self._look(batch, fused, generator)
        told = sum(part * (1.0 if name == REGION_NAMES[_FACE] else _PARTS) for name, part in parts.items())
        return {"loss": told + _LOOK * look, "look": look, **parts}

    def _wanted(self, batch: Batch) -> Float[Tensor, "b d"]:
        assert batch.told is not None
        tokens = self.models.adapter.identity_tokens(batch.told.identity, batch.whole_features).float().mean(1)
        return F.layer_norm(tokens, tokens.shape[1:])

    def _look(self, batch: Batch, fused: Float[Tensor, "b l d"], generator: torch.Generator) -> Tensor:
        """How far the attention to the face's token is from the wanted share, in every layer."""
        models = self.models
        steps = torch.randint(models.scheduler.config.num_train_timesteps, (len(fused),), generator=generator)
        noisy = models.scheduler.add_noise(batch.latents, torch.randn(batch.latents.shape, generator=generator), steps)
        with self.recorder.recording():
            run_unet(models, noisy, steps, fused, batch.identity_embedding, batch.whole_features)
        seen = batch.valid[:, _FACE]
        shares = torch.stack([maps[seen][..., _FACE].mean() for maps in self.recorder.maps(batch.positions)])
        return (_SHARE / shares.clamp(min=1e-6)).log().clamp(min=0).mean()


def _error(found: Float[Tensor, "b d"], wanted: Float[Tensor, "b d"]) -> Tensor:
    """Between what people have different; what all have in common is free."""
    found, wanted = found - found.mean(0), wanted - wanted.mean(0)
    return F.mse_loss(found, wanted) / wanted.square().mean().clamp(min=1e-6)
