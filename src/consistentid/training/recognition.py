"""Whom the recogniser sees in the portrait that the U-Net has in mind: an identity loss.

PuLID (arXiv:2404.16022) compares embeddings of portraits that were drawn in a few steps; here the predicted clean
latents of the noise loss are decoded, which costs no step more.
"""

from dataclasses import dataclass

import torch
from diffusers import AutoencoderTiny
from jaxtyping import Float
from torch import Tensor

from consistentid.faces.dlib_resnet import DlibFaceResNet
from consistentid.training.face_chips import aligned_chips


@dataclass(frozen=True)
class Recognition:
    """Frozen networks beside the U-Net.

    Attributes:
        autoencoder: decodes latents.
        recogniser: embeds faces; what it says has gradients.
        landmarks: where the face lies in every target, in pixels.
    """

    autoencoder: AutoencoderTiny
    recogniser: DlibFaceResNet
    landmarks: Float[Tensor, "5 2"]

    def distance(
        self, clean: Float[Tensor, "b c h w"], identity: Float[Tensor, "b d"], jitter: Float[Tensor, "b 3"]
    ) -> Float[Tensor, ""]:
        """Mean squared distance of embeddings; two photos of one person differ by less than 0.36.

        Args:
            clean: predicted latents, as the U-Net sees them.
            identity: embeddings of whom they are to show; of nobody the distance is 0.
            jitter: see `aligned_chips`.
        """
        if not len(clean):
            return clean.sum()
        latents = clean.to(self.autoencoder.dtype) / self.autoencoder.config.scaling_factor
        images = self.autoencoder.decode(latents).sample.float() / 2 + 0.5
        chips = aligned_chips(images, self.landmarks.expand(len(images), -1, -1), jitter).clamp(0, 1)
        found = self.recogniser(chips.contiguous(memory_format=torch.channels_last))
        return (found.float() - identity).square().sum(1).mean()
