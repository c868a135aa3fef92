"""Whom the recogniser sees in the portrait that the U-Net has in mind, and what its features say of each region.

PuLID (arXiv:2404.16022) compares embeddings of portraits that were drawn in a few steps; here the predicted clean
latents of the noise loss are decoded, which costs no step more.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from diffusers import AutoencoderTiny
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from consistentid.dataset.samples import Looks
from consistentid.faces.dlib_resnet import CHIP_SIZE
from consistentid.identity.dlib_image_encoder import DlibImageEncoder
from consistentid.training.face_chips import aligned_chips, region_chips
from consistentid.training.outlines import Outlines
from consistentid.training.region_appearance import appearance_of


@dataclass(frozen=True)
class Recognition:
    """Frozen networks beside the U-Net.

    Attributes:
        autoencoder: decodes latents.
        encoder: the recogniser; what it says has gradients.
        landmarks: where the face lies in every target, in pixels.
        outlines: of regions; None: regions are not compared.
        spread: how far each region of people is from the mean over people, see `RegionLooks`.
    """

    autoencoder: AutoencoderTiny
    encoder: DlibImageEncoder
    landmarks: Float[Tensor, "5 2"]
    outlines: Outlines | None = None
    spread: Float[Tensor, "n 2"] | None = None

    def pictures(self, clean: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 s s"]:
        """What predicted latents show, in 0..1 and a little beyond."""
        if not len(clean):
            return clean.sum() * clean.new_zeros(0, 3, 1, 1)
        latents = clean.to(self.autoencoder.dtype) / self.autoencoder.config.scaling_factor
        pictures: Tensor = self.autoencoder.decode(latents).sample.float() / 2 + 0.5
        return pictures

    def distance(
        self, pictures: Float[Tensor, "b 3 s s"], identity: Float[Tensor, "b d"], jitter: Float[Tensor, "b 3"]
    ) -> Float[Tensor, ""]:
        """Mean squared distance of embeddings; two photos of one person differ by less than 0.36.

        Args:
            pictures: predicted.
            identity: embeddings of whom they are to show; of nobody the distance is 0.
            jitter: see `aligned_chips`.
        """
        if not len(pictures):
            return pictures.sum()
        found = self.encoder.network(_contiguous(aligned_chips(pictures, self._everywhere(pictures), jitter)))
        return (found.float() - identity).square().sum(1).mean()

    def region_distances(
        self,
        pictures: Float[Tensor, "b 3 s s"],
        rows: Int[Tensor, " k"],
        looks: Looks,
        regions: Int[Tensor, " k"],
        outlined: Bool[Tensor, " k"],
        jitter: Float[Tensor, "k 3"],
    ) -> Float[Tensor, " k"]:
        """How far regions of pictures are from how they are to look; 1 is as far as the mean over people is.

        The distance is 1 less the cosine. With both sides less the mean, every faint difference would count in full:
        what is uncertain was drawn as if it were certain, with black nostrils.

        Args:
            pictures: predicted.
            rows: of which picture.
            looks: of that picture.
            regions: which of its regions.
            outlined: whether in its outline, not in its box.
            jitter: see `aligned_chips`.
        """
        assert self.spread is not None  # measured wherever a stage compares regions
        each, how = torch.arange(len(regions), device=regions.device), (regions, outlined.long())
        wanted, boxes = looks.embeddings[each, *how], looks.boxes[each, regions]
        found = torch.zeros_like(wanted)
        if (boxed := ~outlined).any():
            seen = self.boxed_embeddings(pictures[rows[boxed]], boxes[boxed], jitter[boxed])
            found = found.index_put((boxed,), seen.float())
        if outlined.any():
            seen, _ = self.outlined_embeddings(pictures, rows[outlined], regions[outlined], jitter[outlined])
            found = found.index_put((outlined,), seen.float())
        distances: Tensor = (1 - F.cosine_similarity(found, wanted)) / self.spread[how]
        return distances

    def boxed_embeddings(
        self, pictures: Float[Tensor, "b 3 s s"], boxes: Float[Tensor, "b 4"], jitter: Float[Tensor, "b 3"]
    ) -> Float[Tensor, "b k"]:
        """What FGIS's embedder says of one region of each picture in its box; see `region_chips`."""
        return self._embedded(region_chips(pictures, self._everywhere(pictures), boxes, jitter))

    def outlined_embeddings(
        self,
        pictures: Float[Tensor, "b 3 s s"],
        rows: Int[Tensor, " n"],
        regions: Int[Tensor, " n"],
        jitter: Float[Tensor, "n 3"],
    ) -> tuple[Float[Tensor, "n k"], Bool[Tensor, " n"]]:
        """The same of regions in their outlines, and whether the parser sees them; see `Outlines.chips`."""
        assert self.outlines is not None  # wherever a stage compares regions
        chips, seen = self.outlines.chips(pictures.clamp(0, 1), self._everywhere(pictures), rows, regions, jitter)
        return self._embedded(chips), seen

    def _embedded(self, chips: Float[Tensor, "b 3 150 150"]) -> Float[Tensor, "b k"]:
        return appearance_of(self.encoder.hidden_states(_contiguous(chips))) - self._black

    def _everywhere(self, pictures: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b 5 2"]:
        return self.landmarks.expand(len(pictures), -1, -1)

    @cached_property
    def _black(self) -> Float[Tensor, "1 k"]:
        return appearance_of(self.encoder.encode(torch.zeros(1, 3, CHIP_SIZE, CHIP_SIZE)))


def _contiguous(chips: Float[Tensor, "b 3 150 150"]) -> Float[Tensor, "b 3 150 150"]:
    return chips.clamp(0, 1).contiguous(memory_format=torch.channels_last)
