"""The decoder once more: the same latents, drawn with what regions are recognised by.

The first stage sees random squares and counts every pixel alike. With its decoder, eyes of photos were no more like
themselves after encoding and decoding than those of portraits, so exact latents would not have brought those nearer.
Here faces lie where targets have them, and regions count most; the encoder stays, and with it all latents.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from diffusers import AutoencoderTiny
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from consistentid.faces.dlib_resnet import CHIP_SIZE, DlibFaceResNet
from consistentid.faces.regions import REGION_NAMES
from consistentid.training.embedded.autoencoder import FeatureDistance, edges_of, identity_distance
from consistentid.training.face_chips import cut_out
from consistentid.training.outlines import squares_around
from consistentid.training.share import Share

_FACE = REGION_NAMES.index("face")
_DETAILS = [row for row in range(len(REGION_NAMES)) if row != _FACE]
_COUNTS = {"face": 1.0, "details": 3.0}  # what a pixel of these counts more than others


@dataclass
class DecoderTask:
    """Reconstruction of targets from their latents, whose encoder is frozen.

    Attributes:
        autoencoder: its decoder is trained.
        images: targets.
        latents: of these, scaled.
        regions: masks of the regions, at latent resolution.
        landmarks: where the face lies in every target, in pixels.
        recogniser: looks at the whole picture, at one region of it, and at who it is.
        latent_noise: standard deviation of what is added to latents, at most: what is generated is not exact.
    """

    autoencoder: AutoencoderTiny
    images: UInt8[Tensor, "n v s s 3"]
    latents: Float[Tensor, "n v c l l"]
    regions: Bool[Tensor, "n v r l l"]
    landmarks: Float[Tensor, "5 2"]
    recogniser: DlibFaceResNet
    batch_size: int = 8
    features_weight: float = 0.1
    details_weight: float = 0.5
    identity_weight: float = 0.5
    latent_noise: float = 0.12

    @property
    def modules(self) -> dict[str, nn.Module]:
        """See `Task.modules`."""
        return {"decoder": self.autoencoder.decoder}

    def losses(self, share: Share) -> dict[str, Tensor]:
        """See `Task.losses`."""
        generator = share.generator()
        chosen = [torch.randint(count, (self.batch_size,), generator=generator) for count in self.latents.shape[:2]]
        wanted = self.images[*chosen].permute(0, 3, 1, 2).float() / 127.5 - 1
        masks = F.interpolate(self.regions[*chosen].float(), size=wanted.shape[-2:])
        decoded = self._decoded(self.latents[*chosen].float(), generator)
        counts = _counts(masks)
        pixels = ((decoded - wanted).abs() * counts).mean()
        edges = ((edges_of(decoded) - edges_of(wanted)).abs() * counts).mean()
        features = self._features(decoded, wanted)
        details = self._details(decoded, wanted, masks, generator)
        landmarks = self.landmarks.expand(self.batch_size, -1, -1)
        identity = identity_distance(self.recogniser, decoded, wanted, landmarks, generator)
        loss = pixels + edges + self.features_weight * features + self.details_weight * details
        parts = {"l1": pixels, "edges": edges, "features": features, "details": details, "identity": identity}
        return {"loss": loss + self.identity_weight * identity, **parts}

    def _decoded(self, latents: Float[Tensor, "b c l l"], generator: torch.Generator) -> Float[Tensor, "b 3 s s"]:
        share = torch.rand(len(latents), 1, 1, 1, generator=generator)
        noisy = latents + self.latent_noise * share * torch.randn(latents.shape, generator=generator)
        unscaled = (noisy / self.autoencoder.config.scaling_factor).contiguous(memory_format=torch.channels_last)
        decoded: Tensor = self.autoencoder.decode(unscaled).sample.float()
        return decoded

    def _details(self, decoded: Tensor, wanted: Tensor, masks: Tensor, generator: torch.Generator) -> Tensor:
        """Distance in the square around one region of each picture."""
        rows, regions = torch.arange(len(masks)), _some_detail(masks, generator)
        squares, _ = squares_around(masks[rows, regions] > 0.5)
        pairs = cut_out(torch.cat([decoded, wanted], 1), squares, torch.randn(len(masks), 3, generator=generator))
        seen: Tensor = self._close(*pairs.split(3, dim=1))
        return seen

    @cached_property
    def _features(self) -> FeatureDistance:
        return FeatureDistance(self.recogniser)

    @cached_property
    def _close(self) -> FeatureDistance:
        return FeatureDistance(self.recogniser, size=CHIP_SIZE)


def _some_detail(masks: Float[Tensor, "b r s s"], generator: torch.Generator) -> Int[Tensor, " b"]:
    """One region of each picture that it shows, never the face; any where it shows none."""
    shown = masks.amax((2, 3))
    shown[:, _FACE] = -1
    found: Tensor = (shown + torch.rand(shown.shape, generator=generator) * 0.5).argmax(1)
    return found


def _counts(masks: Float[Tensor, "b r s s"]) -> Float[Tensor, "b 1 s s"]:
    counts = 1 + _COUNTS["face"] * masks[:, [_FACE]] + _COUNTS["details"] * masks[:, _DETAILS].amax(1, keepdim=True)
    mean: Tensor = counts / counts.mean()
    return mean
