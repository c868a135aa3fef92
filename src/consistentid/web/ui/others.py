"""Photos besides the one of the person: which of those that were given plays which role. Knows nothing of Gradio."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from consistentid.errors import InvalidSettings
from consistentid.generation.donors import BESIDE, BLEND, SAME, Donors
from consistentid.generation.in_place import STRENGTH
from consistentid.generation.places import MOST_AUTOMATIC
from consistentid.generation.settings import TEXT_TO_IMAGE, PortraitSettings
from consistentid.identity.control import IDENTITY, PARTS
from consistentid.identity.several_photos import Combination
from consistentid.web.jobs import INTO, PortraitRequest

# Names of the places for photos. Those of others are chosen from, the further ones are all of the person.
OTHERS = tuple(f"other photo {number}" for number in range(1, 5))
FURTHER = tuple(f"further photo {number}" for number in range(1, 4))
PLACES = (*OTHERS, *FURTHER, INTO)
OWN, NOBODY = "the photo", "nobody"  # what is chosen instead of an other photo
SOMEBODY = "a person"  # said of whom nothing else is said
_ROLES = {IDENTITY: "the person overall", BLEND: "to blend with", BESIDE: "a person beside"}


@dataclass(frozen=True)
class Others:
    """Values of the controls.

    Attributes:
        parts: whose each part is, of `OWN` and `OTHERS`.
        blend_with: who is mixed in, of `NOBODY` and `OTHERS`, with the share `blend`.
        blend: as in `GenerationSettings`.
        beside: who else is in the picture, likewise, from left to right.
        clauses: what is said of each of them, the person first.
        combine: as in `GenerationSettings`.
        mask, strength: as in `PortraitRequest`, when there is a picture that the person is put into.
    """

    parts: Mapping[str, str] = field(default_factory=lambda: dict.fromkeys(PARTS, OWN))
    blend_with: str = NOBODY
    blend: float = 0.5
    beside: tuple[str, ...] = (NOBODY,) * (MOST_AUTOMATIC - 1)
    clauses: tuple[str, ...] = ("",) * MOST_AUTOMATIC
    combine: Combination = "average"
    mask: str = "face"
    strength: float = STRENGTH

    def photos(self, given: Mapping[str, bytes]) -> list[tuple[str, bytes]]:
        """Role and content of every photo that takes part.

        Args:
            given: contents, by the names of places.

        Raises:
            InvalidSettings: one was chosen that was not given.
        """

        def chosen(name: str, role: str) -> bytes:
            if name not in given:
                what = f"{name} is chosen ({_ROLES.get(role, role)})"
                raise InvalidSettings(f"{what}, but it is not there, or cannot be used; give it, or choose another")
            return given[name]

        donors = Donors(
            {part: chosen(name, part) for part, name in self.parts.items() if name != OWN},
            None if self.blend_with == NOBODY else chosen(self.blend_with, BLEND),
            tuple(given[name] for name in FURTHER if name in given),
            tuple(chosen(name, BESIDE) for name in self.beside if name != NOBODY),
        )
        found = [*donors.by_role(), (INTO, given.get(INTO))]
        return [(role, content) for role, content in found if isinstance(content, bytes)]

    def settings(self, photos: Iterable[tuple[str, bytes]]) -> dict[str, object]:
        """What a request says of them; what is as usual is left open.

        Args:
            photos: those that take part.
        """
        roles, usual = {role for role, _ in photos}, type(self)()
        asked: dict[str, object] = {}
        if BLEND in roles:
            asked["blend"] = self.blend
        if SAME in roles and self.combine != usual.combine:
            asked["combine"] = self.combine
        said = self._clauses()
        if BESIDE in roles and any(said):
            asked["clauses"] = tuple(clause or SOMEBODY for clause in said)
        if INTO in roles:
            names = ("mask", "strength")
            asked |= {name: getattr(self, name) for name in names if getattr(self, name) != getattr(usual, name)}
        return asked

    def _clauses(self) -> list[str]:
        first, *others = (clause.strip() for clause in self.clauses)
        return [first, *(clause for clause, name in zip(others, self.beside, strict=True) if name != NOBODY)]

    def restored(self, record: PortraitSettings, *, given: Mapping[str, str]) -> tuple[Self, str]:
        """The choices behind a portrait, and a sentence about photos that must be given again for it, or taken away.

        Args:
            record: of the portrait; it holds no photo.
            given: hashes of the photos that are there, by the names of places.
        """
        wanted = [donor for donor in record.donors if donor.role != SAME]
        places = _places_of([donor.photo_sha256 for donor in wanted], given)
        by_role = {donor.role: places[donor.photo_sha256] for donor in wanted if donor.photo_sha256 in places}
        beside = [places[one.photo_sha256] for one in wanted if one.role == BESIDE and one.photo_sha256 in places]
        form = replace(
            self,
            parts={part: by_role.get(part, OWN) for part in PARTS},
            blend_with=by_role.get(BLEND, NOBODY),
            blend=self.blend if record.blend is None else record.blend,
            beside=_filled(beside, NOBODY, len(self.beside)),
            clauses=_filled(["" if clause == SOMEBODY else clause for clause in record.clauses], "", MOST_AUTOMATIC),
            combine=record.combine,
        )
        missing = {
            name: ", ".join(dict.fromkeys(_ROLES.get(one.role, one.role) for one in wanted if one.photo_sha256 == sha))
            for sha, name in places.items()
            if given.get(name) != sha
        }
        again = [f"{name} ({roles})" for name, roles in missing.items()]
        unplaced = len({donor.photo_sha256 for donor in wanted} - set(places)) + max(0, len(beside) - len(self.beside))
        return form, _sentence(again, record, given, unplaced=unplaced)

    def with_picture(self, request: PortraitRequest) -> Self:
        """The choices with what a request says of the picture that the person is put into."""
        return replace(self, mask=request.mask or type(self)().mask, strength=request.strength or STRENGTH)


def _places_of(wanted: Iterable[str], given: Mapping[str, str]) -> dict[str, str]:
    """The place of each photo: where it is already, else an empty one, else one of a photo that is not wanted."""
    hashes = list(dict.fromkeys(wanted))
    found = {given[name]: name for name in OTHERS if given.get(name) in hashes}
    free = sorted(set(OTHERS) - set(found.values()), key=lambda name: (name in given, name))
    missing = [sha for sha in hashes if sha not in found]
    return {**found, **dict(zip(missing, free, strict=False))}


def _filled(values: Sequence[str], rest: str, count: int) -> tuple[str, ...]:
    return (*values, *(rest,) * count)[:count]


def _sentence(again: list[str], record: PortraitSettings, given: Mapping[str, str], *, unplaced: int) -> str:
    """Which photos are missing, which are in the way, and for how many there is no place."""
    same = {donor.photo_sha256 for donor in record.donors if donor.role == SAME}
    further = {given[name] for name in FURTHER if name in given}
    away = ["further photos that it was made without"] if further - same else []
    if same - further:
        again = [*again, f"{len(same - further)} further of the person"]
    if record.task == TEXT_TO_IMAGE and INTO in given:
        away.append("the picture that the person would be put into")
    if record.task != TEXT_TO_IMAGE and INTO not in given:
        again = [*again, "the picture that the person was put into"]
    unplaced += max(0, len(same) - len(FURTHER))
    lost = [f"{unplaced} more photos"] if unplaced else []
    said = (("Give again", again), ("Take away", away), ("This page has no place for", lost))
    return " ".join(f"{verb}: {', '.join(names)}." for verb, names in said if names)
