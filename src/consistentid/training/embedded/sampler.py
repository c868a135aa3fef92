"""Random batches from the stores: which words are said, which reference is shown."""

from collections.abc import Callable
from dataclasses import astuple, dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from consistentid.dataset.samples import Batch, Looks, Told
from consistentid.dataset.wording import Attributes, random_prompt
from consistentid.faces.regions import REGION_NAMES
from consistentid.training.embedded.looks import RegionLooks
from consistentid.training.embedded.store import (
    BACKGROUNDS,
    EXPRESSIONS,
    GENDERS,
    HAIRS,
    MIXED_REGIONS,
    PRIOR_WORDS,
    VOCABULARY,
    References,
    Targets,
)
from consistentid.training.region_appearance import appearance_of

Tokenize = Callable[[str, bool], tuple[Tensor, dict[str, int]]]
_MAN, _WOMAN = GENDERS.index("man"), GENDERS.index("woman")
_SMILING, _SERIOUS = EXPRESSIONS.index("smiling"), EXPRESSIONS.index("serious")
_EXPRESSION = VOCABULARY.index(EXPRESSIONS)
_MOUTH = REGION_NAMES.index("mouth")


@dataclass(frozen=True)
class StoreSampler:
    """Draws batches.

    Attributes:
        latents: of every target.
        persons: index of the person of each photo.
        tokenize: prompt, and whether the caption follows -> ids (77) and the position of each region's word.
        looks: of every photo's regions; None: they are not compared.
        contradict: how often a reference with other hair and another mouth stands beside a text that names both:
            the text must win.
        strangers: share of the batch whose reference is somebody else than the target, half of them a blend of two
            people, with another text. Each shares its target with a sample whose reference is the target's, in the
            same order. A man or woman asked for against the reference moves the identity that is aimed at by the
            mean difference.
        composites: share of the batch whose targets show regions of another photo, where the store has such targets;
            the reference's regions come from there, too.
        mixed: how often a stranger's eyes, nose, mouth or ears are those of yet another person.
        quiet: how often the text of a sample without contradictions says nothing of the expression, whatever else it
            says: then the reference's mouth decides.
        other_photo: how often the reference is another photo of the same person, where there is one; with a text that
            says nothing of the expression, one of the same expression.
        without_caption: how often the text is the prompt alone, as in the plain pipeline.
        identity_noise: largest standard deviation of noise on identity embeddings, per dimension; two photos of one
            person differ by about 0.02.
    """

    latents: Float[Tensor, "n v 8 16 16"]
    targets: Targets
    references: References
    persons: Tensor
    tokenize: Tokenize
    looks: RegionLooks | None = None
    contradict: float = 0.5
    strangers: float = 0.0
    composites: float = 0.0
    mixed: float = 0.2
    quiet: float = 0.0
    other_photo: float = 0.6
    without_caption: float = 0.15
    identity_noise: float = 0.03

    def draw(self, count: int, generator: torch.Generator) -> Batch:
        """A batch, strangers first; the same generator state gives the same batch."""
        rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
        photos, variants = rng.integers(len(self.latents), size=count), self._variants(count, rng)
        pairs = int(self.strangers * count)
        stranger = np.arange(count) < pairs
        photos[:pairs], variants[:pairs] = photos[pairs : 2 * pairs], variants[pairs : 2 * pairs]
        texts = [self._text(*which, rng) for which in zip(photos, variants, stranger, strict=True)]
        donated = self.targets.mixed[photos, variants] & torch.from_numpy(~stranger)[:, None]
        contradicted = np.array([text.contradicts for text in texts]) & ~donated.any(1).numpy()
        asked_expression = np.array([text.words[_EXPRESSION] for text in texts])
        shown = self._reference(photos, stranger, contradicted, asked_expression == 0, rng)
        shown = shown.donated(self.targets.donors[photos, variants].numpy(), donated)
        ids, positions = zip(*(self.tokenize(text.prompt, text.with_caption) for text in texts), strict=True)
        where = torch.tensor([[found.get(name, 0) for name in REGION_NAMES] for found in positions])
        person = replace(shown, photos=np.where(stranger, shown.photos, photos), views=np.zeros_like(shown.views))
        identity = person.of(self.references.identity)
        features, present = shown.regions(self.references), shown.present(self.references)
        asked = torch.tensor([text.words[0] for text in texts])
        identity = identity + self._towards(asked, torch.from_numpy(shown.photos)) * torch.from_numpy(stranger)[:, None]
        contradicting = torch.from_numpy(contradicted | (stranger & (asked_expression > 0)))
        return Batch(
            latents=self.latents[photos, variants].float(),
            ids=torch.stack(ids),
            positions=where,
            valid=present & (where > 0),
            identity_embedding=self._noisy(shown.of(self.references.identity), generator),
            whole_features=shown.of(self.references.whole),
            region_features=features,
            foreground=self.targets.foreground[photos, variants][:, None].float(),
            region_masks=self.targets.regions[photos, variants].float(),
            stranger=torch.from_numpy(stranger),
            told=Told(
                identity,
                torch.tensor([text.words for text in texts])[:, PRIOR_WORDS],
                shown.region_people(identity, self.references.identity[:, 0]),
                appearance_of(features),
                present,
                self._mouth_words(shown),
            ),
            looks=self._looks(shown, photos, variants, stranger, contradicting),
        )

    def _looks(
        self, shown: "_Reference", photos: np.ndarray, variants: np.ndarray, stranger: np.ndarray, said: Tensor
    ) -> Looks | None:
        """How regions look in the target, or in what a stranger is shown; nothing of mouths that the text decides."""
        if self.looks is None:
            return None
        sides = np.where(stranger, shown.views, variants) % 2
        own = torch.from_numpy(np.where(stranger, shown.photos, photos))
        people = torch.where(shown.mixed, torch.from_numpy(shown.donors)[:, None], own[:, None])
        looks = self.looks.of(people, torch.from_numpy(sides))
        blended = (shown.share > 0)[:, None] & ~shown.mixed
        decided = said[:, None] & torch.tensor([name == "mouth" for name in REGION_NAMES])
        return replace(looks, known=looks.known & ~blended & ~decided)

    def _mouth_words(self, shown: "_Reference") -> Tensor:
        """The expression of each sample's mouth, in the columns of `PRIOR_WORDS`; nothing of blended mouths."""
        mouths = np.where(shown.mixed[:, _MOUTH], shown.donors, shown.photos)
        own = self.targets.words[mouths, 0, _EXPRESSION].long()
        contradicting = torch.from_numpy(shown.views >= self.references.identity.shape[1] // 2)
        said = torch.where(contradicting, torch.where(own == _SMILING, _SERIOUS, _SMILING), own)
        said = said * ~((shown.share > 0) & ~shown.mixed[:, _MOUTH])
        return torch.stack([said * (column == _EXPRESSION) for column in PRIOR_WORDS], 1)

    def _variants(self, count: int, rng: np.random.Generator) -> np.ndarray:
        plain, every = self.targets.plain, self.latents.shape[1]
        variants = rng.integers(plain, size=count)
        if self.composites and every > plain:
            composed = rng.random(count) < self.composites
            variants[composed] = rng.integers(plain, every, size=composed.sum())
        return variants

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

    def _text(self, photo: int, variant: int, stranger: bool, rng: np.random.Generator) -> "_Text":
        contradicts = bool(rng.random() < self.contradict)
        asked = _imagined(rng) if stranger else self._stated(photo, variant, contradicts, rng)
        return _Text(asked, random_prompt(asked, rng), bool(rng.random() >= self.without_caption), contradicts)

    def _stated(self, photo: int, variant: int, contradicts: bool, rng: np.random.Generator) -> Attributes:
        """What is true of the target."""
        words = self.targets.words[photo, variant].tolist()
        stated = Attributes(*(names[index] for names, index in zip(VOCABULARY, words, strict=True)))
        said = stated.subset(rng, keep=0.6)
        if contradicts:
            return Attributes(said.gender, stated.expression, stated.hair, said.background)
        if rng.random() < self.quiet:
            said = replace(said, expression=None)
        recoloured = stated.hair != HAIRS[int(self.targets.words[photo, 0, 2])]
        return Attributes(said.gender, said.expression, stated.hair if recoloured else said.hair, said.background)

    def _reference(
        self,
        photos: np.ndarray,
        stranger: np.ndarray,
        contradicted: np.ndarray,
        silent: np.ndarray,
        rng: np.random.Generator,
    ) -> "_Reference":
        count, half = len(photos), self.references.identity.shape[1] // 2
        shown = np.array([self._reference_photo(photo, rng) for photo in photos])
        expressions = self.targets.words[:, 0, _EXPRESSION].numpy()
        shown = np.where(silent & (expressions[shown] != expressions[photos]), photos, shown)
        shown[stranger] = rng.integers(len(self.latents), size=stranger.sum())
        blended, replaced = (stranger & (rng.random(count) < share) for share in (0.5, self.mixed))
        mixed = replaced[:, None] & (rng.random((count, len(REGION_NAMES))) < 0.5)
        return _Reference(
            photos=shown,
            views=rng.integers(half, size=count) + half * contradicted,
            others=rng.integers(len(self.latents), size=count),
            share=torch.from_numpy(np.where(blended, rng.uniform(0, 0.5, count), 0)).float(),
            donors=rng.integers(len(self.latents), size=count),
            mixed=torch.from_numpy(mixed & [name in MIXED_REGIONS for name in REGION_NAMES]),
        )

    def _reference_photo(self, photo: int, rng: np.random.Generator) -> int:
        same = torch.nonzero(self.persons == self.persons[photo])[:, 0].tolist()
        others = [index for index in same if index != photo]
        return int(rng.choice(others)) if others and rng.random() < self.other_photo else int(photo)


def _imagined(rng: np.random.Generator) -> Attributes:
    """Anything."""
    vocabulary = (GENDERS, EXPRESSIONS, HAIRS[:-1], BACKGROUNDS)  # but nobody becomes bald
    return Attributes(*(names[rng.integers(1, len(names))] if rng.random() < 0.4 else None for names in vocabulary))


@dataclass(frozen=True)
class _Text:
    """A prompt and what it asks for; whether it contradicts the reference."""

    asked: Attributes
    prompt: str
    with_caption: bool
    contradicts: bool

    @property
    def words(self) -> list[int]:
        """As `Targets.words`."""
        return [names.index(word) for names, word in zip(VOCABULARY, astuple(self.asked), strict=True)]


@dataclass(frozen=True)
class _Reference:
    """Which row of the references each sample sees.

    Attributes:
        photos: the reference.
        views: its variant.
        others: a second person, of whom a share is mixed into everything.
        share: how much.
        donors: a third person, whose regions replace those of the reference.
        mixed: which regions.
    """

    photos: np.ndarray
    views: np.ndarray
    others: np.ndarray
    share: Float[Tensor, " b"]
    donors: np.ndarray
    mixed: Bool[Tensor, "b n"]

    def donated(self, donors: np.ndarray, mixed: Bool[Tensor, "b n"]) -> "_Reference":
        """With regions of the targets' own donors where they have any."""
        given = mixed.any(1, keepdim=True)
        donors = np.where(given[:, 0].numpy(), donors, self.donors)
        return replace(self, donors=donors, mixed=torch.where(given, mixed, self.mixed))

    def of(self, table: Float[Tensor, "n r ..."]) -> Float[Tensor, "b ..."]:
        """Rows of a table of features."""
        rows = table[self.photos, self.views].float()
        blended = torch.nonzero(self.share)[:, 0]
        second = table[self.others[blended], self.views[blended]].float()
        rows[blended] = torch.lerp(rows[blended], second, self.share[blended].view(-1, *[1] * (rows.ndim - 1)))
        return rows

    def regions(self, references: References) -> Float[Tensor, "b n t di"]:
        """Features of the regions."""
        rows = self.of(references.regions)
        sample, region = torch.nonzero(self.mixed, as_tuple=True)
        rows[sample, region] = references.regions[self.donors[sample], self.views[sample], region].float()
        return rows

    def present(self, references: References) -> Bool[Tensor, "b n"]:
        """Regions that all people show who are seen in them."""
        table = references.present
        alone = (self.share == 0)[:, None]
        shown = table[self.photos, self.views] & (table[self.others, self.views] | alone)
        return torch.where(self.mixed, table[self.donors, self.views], shown)

    def region_people(self, person: Float[Tensor, "b d"], people: Float[Tensor, "m d"]) -> Float[Tensor, "b n d"]:
        """Embedding of whoever each region belongs to."""
        return torch.where(self.mixed[..., None], people[self.donors][:, None].float(), person[:, None])
