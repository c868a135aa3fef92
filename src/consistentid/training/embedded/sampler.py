"""Random batches from the stores: which words are said, which reference is shown."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from consistentid.dataset.samples import Batch
from consistentid.faces.regions import REGION_NAMES
from consistentid.training.embedded.captions import Attributes, random_prompt
from consistentid.training.embedded.store import BACKGROUNDS, EXPRESSIONS, GENDERS, HAIRS, References, Targets

Tokenize = Callable[[str, bool], tuple[Tensor, dict[str, int]]]
_MAN, _WOMAN = GENDERS.index("man"), GENDERS.index("woman")


@dataclass(frozen=True)
class StoreSampler:
    """Draws batches.

    Attributes:
        latents: of every target.
        persons: index of the person of each photo.
        tokenize: prompt, and whether the caption follows -> ids (77) and the position of each region's word.
        contradict: how often a reference with other hair and another mouth stands beside a text that names both:
            the text must win.
        strangers: share of the batch whose reference is somebody else than the target, half of them a blend of two
            people. They only follow the identity prior, at noise so high that the latents say nothing about whom to
            draw: everything must come from the reference. A man or woman asked for against the reference moves the
            identity that is aimed at by the mean difference.
        other_photo: how often the reference is another photo of the same person, where there is one.
        without_caption: how often the text is the prompt alone, as in the plain pipeline.
        identity_noise: largest standard deviation of noise on identity embeddings, per dimension; two photos of one
            person differ by about 0.02.
    """

    latents: Float[Tensor, "n v 8 16 16"]
    targets: Targets
    references: References
    persons: Tensor
    tokenize: Tokenize
    contradict: float = 0.5
    strangers: float = 0.0
    other_photo: float = 0.6
    without_caption: float = 0.15
    identity_noise: float = 0.03

    def draw(self, count: int, generator: torch.Generator) -> Batch:
        """A batch, strangers first; the same generator state gives the same batch."""
        rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
        photos, variants = (rng.integers(n, size=count) for n in self.latents.shape[:2])
        stranger = np.arange(count) < int(self.strangers * count)
        shown = np.array([self._reference_photo(photo, rng) for photo in photos])
        shown[stranger] = rng.integers(len(self.latents), size=stranger.sum())
        ids, positions, contradicted, genders = [], [], [], []
        for photo, variant, strange in zip(photos, variants, stranger, strict=True):
            contradicts = bool(rng.random() < self.contradict)
            attributes = self._attributes(photo, variant, contradicts, rng)
            gender = str(rng.choice(("", "", "man", "woman"))) or None if strange else attributes.gender
            prompt = random_prompt(attributes.of_gender(gender), rng)
            tokens, where = self.tokenize(prompt, bool(rng.random() >= self.without_caption))
            ids.append(tokens)
            positions.append([where.get(name, 0) for name in REGION_NAMES])
            contradicted.append(contradicts)
            genders.append(GENDERS.index(gender))
        where_ = torch.tensor(positions)
        half = self.references.identity.shape[1] // 2
        views = rng.integers(half, size=count) + half * np.array(contradicted)
        share = np.where(stranger & (rng.random(count) < 0.5), rng.uniform(0, 0.5, count), 0)
        blend = _Blend(shown, views, rng.integers(len(self.latents), size=count), torch.from_numpy(share).float())
        moved = self._towards(torch.tensor(genders), torch.from_numpy(shown)) * torch.from_numpy(stranger)[:, None]
        return Batch(
            latents=self.latents[photos, variants].float(),
            ids=torch.stack(ids),
            positions=where_,
            valid=blend.both(self.references.present) & (where_ > 0),
            identity_embedding=self._noisy(blend.of(self.references.identity), generator),
            whole_features=blend.of(self.references.whole),
            region_features=blend.of(self.references.regions),
            foreground=self.targets.foreground[photos, variants][:, None].float(),
            region_masks=self.targets.regions[photos, variants].float(),
            target_identity=blend.at(np.where(stranger, shown, photos), 0).of(self.references.identity) + moved,
            stranger=torch.from_numpy(stranger),
        )

    @cached_property
    def _woman_minus_man(self) -> Float[Tensor, " 128"]:
        genders, embeddings = self.targets.words[:, 0, 0], self.references.identity[:, 0].float()
        means = [embeddings[genders == gender].mean(0) for gender in (_WOMAN, _MAN)]
        return (means[0] - means[1]).nan_to_num()

    def _towards(self, asked: Tensor, shown: Tensor) -> Float[Tensor, "b 128"]:
        """What the asked gender changes in the embedding of the shown photos' people."""
        known = self.targets.words[shown, 0, 0].long()
        differs = (asked > 0) & (known > 0) & (asked != known)
        sign = torch.where(asked == _WOMAN, 1.0, -1.0) * differs
        return sign[:, None] * self._woman_minus_man

    def _noisy(self, identity: Float[Tensor, "b d"], generator: torch.Generator) -> Float[Tensor, "b d"]:
        std = self.identity_noise * torch.rand(len(identity), 1, generator=generator)
        return identity + std * torch.randn(identity.shape, generator=generator)

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


@dataclass(frozen=True)
class _Blend:
    """Which row of the references each sample sees, and how much of a second photo is mixed into it."""

    photos: np.ndarray
    views: np.ndarray
    others: np.ndarray
    share: Float[Tensor, " b"]

    def of(self, table: Float[Tensor, "n r ..."]) -> Float[Tensor, "b ..."]:
        """Rows of a table of features."""
        rows = table[self.photos, self.views].float()
        mixed = torch.nonzero(self.share)[:, 0]
        second = table[self.others[mixed], self.views[mixed]].float()
        rows[mixed] = torch.lerp(rows[mixed], second, self.share[mixed].view(-1, *[1] * (rows.ndim - 1)))
        return rows

    def both(self, present: Tensor) -> Tensor:
        """Regions that all photos of the blend show."""
        alone = (self.share == 0)[:, None]
        return present[self.photos, self.views] & (present[self.others, self.views] | alone)

    def at(self, photos: np.ndarray, view: int) -> "_Blend":
        """The same blend of other photos in one view."""
        return _Blend(photos, np.full_like(self.views, view), self.others, self.share)
