"""Random batches from the stores: which words are said, which reference is shown."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from consistentid.dataset.samples import Batch
from consistentid.faces.regions import REGION_NAMES
from consistentid.training.embedded.captions import Attributes, random_prompt
from consistentid.training.embedded.store import BACKGROUNDS, EXPRESSIONS, GENDERS, HAIRS, References, Targets

Tokenize = Callable[[str, bool], tuple[Tensor, dict[str, int]]]


@dataclass(frozen=True)
class StoreSampler:
    """Draws batches.

    Attributes:
        latents: of every target.
        persons: index of the person of each photo.
        tokenize: prompt, and whether the caption follows -> ids (77) and the position of each region's word.
        contradict: how often a reference with other hair and another mouth stands beside a text that names both:
            the text must win.
        other_photo: how often the reference is another photo of the same person, where there is one.
        without_caption: how often the text is the prompt alone, as in the plain pipeline.
    """

    latents: Float[Tensor, "n v 8 16 16"]
    targets: Targets
    references: References
    persons: Tensor
    tokenize: Tokenize
    contradict: float = 0.5
    other_photo: float = 0.6
    without_caption: float = 0.15

    def draw(self, count: int, generator: torch.Generator) -> Batch:
        """A batch; the same generator state gives the same batch."""
        rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
        photos, variants = (rng.integers(n, size=count) for n in self.latents.shape[:2])
        ids, positions, contradicted = [], [], []
        for photo, variant in zip(photos, variants, strict=True):
            contradicts = bool(rng.random() < self.contradict)
            prompt = random_prompt(self._attributes(photo, variant, contradicts, rng), rng)
            tokens, where = self.tokenize(prompt, bool(rng.random() >= self.without_caption))
            ids.append(tokens)
            positions.append([where.get(name, 0) for name in REGION_NAMES])
            contradicted.append(contradicts)
        shown = np.array([self._reference_photo(photo, rng) for photo in photos])
        half = self.references.identity.shape[1] // 2
        views = rng.integers(half, size=count) + half * np.array(contradicted)
        where_ = torch.tensor(positions)
        return Batch(
            latents=self.latents[photos, variants].float(),
            ids=torch.stack(ids),
            positions=where_,
            valid=self.references.present[shown, views] & (where_ > 0),
            identity_embedding=self.references.identity[shown, views].float(),
            whole_features=self.references.whole[shown, views].float(),
            region_features=self.references.regions[shown, views].float(),
            foreground=self.targets.foreground[photos, variants][:, None].float(),
            region_masks=self.targets.regions[photos, variants].float(),
            landmarks=self.targets.landmarks[photos, variants].float(),
            target_identity=self.references.identity[photos, 0].float(),
        )

    def _attributes(self, photo: int, variant: int, contradicts: bool, rng: np.random.Generator) -> Attributes:
        gender, expression, hair, background = self.targets.words[photo, variant].tolist()
        stated = Attributes(GENDERS[gender], EXPRESSIONS[expression], HAIRS[hair], BACKGROUNDS[background])
        said = stated.subset(rng, keep=0.6)
        if contradicts:
            return Attributes(said.gender, stated.expression, stated.hair, said.background)
        recoloured = hair != int(self.targets.words[photo, 0, 2])
        return Attributes(said.gender, said.expression, stated.hair if recoloured else said.hair, said.background)

    def _reference_photo(self, photo: int, rng: np.random.Generator) -> int:
        same = torch.nonzero(self.persons == self.persons[photo])[:, 0].tolist()
        others = [index for index in same if index != photo]
        return int(rng.choice(others)) if others and rng.random() < self.other_photo else int(photo)
