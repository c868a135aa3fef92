"""Control per part of the photo: how strongly each region and the overall identity act, and in which steps."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from consistentid.errors import InvalidSettings
from consistentid.faces.regions import REGION_NAMES

IDENTITY = "identity"  # the overall identity: what the identity tokens say
PARTS = (*REGION_NAMES, IDENTITY)
MAX_WEIGHT = 1.5
REWORDED_WEIGHT = 0.25  # of a region whose words are the user's, unless the user weighs it too


@dataclass(frozen=True)
class Strengths:
    """What acts in one step.

    Attributes:
        regions: weight of every region; None: the text before the merge step, which knows no region.
        identity: weight of the identity tokens.
        placed: weight of the identity tokens of whoever gives a region, in its place.
    """

    regions: Mapping[str, float] | None
    identity: float
    placed: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Control:
    """How strongly the parts of one photo act, and when.

    A region's weight goes from its word alone (0) over the usual (1, see `AdapterConfig.region_strength`) to half as
    much again (1.5); that of the overall identity from nobody over the person to a caricature.

    Attributes:
        weights: of some of `PARTS`; 1 for the others.
        starts: first step in which some of `PARTS` act, as shares of the steps that are run; regions without one start
            after the merge step, the identity at once, also that of somebody else in a region's place.
        ends: the step from which on some of `PARTS` act no more, likewise; the others act to the last step.
    """

    weights: Mapping[str, float] = field(default_factory=dict)
    starts: Mapping[str, float] = field(default_factory=dict)
    ends: Mapping[str, float] = field(default_factory=dict)

    def at(self, step: int, *, steps: int, merge_step: int) -> Strengths:
        """What acts in one of the steps that are run, counted from 0."""
        acting, placed = (
            {name: self._acts(name, step, steps=steps, start=start) for name in REGION_NAMES}
            for start in (merge_step + 1, 0)
        )
        identity = self._acts(IDENTITY, step, steps=steps, start=0)
        regions, given = (
            {name: self.weights.get(name, 1.0) if acts else 0.0 for name, acts in row.items()}
            for row in (acting, placed)
        )
        return Strengths(
            regions if step > merge_step or any(acting.values()) else None,
            self.weights.get(IDENTITY, 1.0) if identity else 0.0,
            given,
        )

    def _acts(self, part: str, step: int, *, steps: int, start: int) -> bool:
        first = round(self.starts[part] * steps) if part in self.starts else start
        return first <= step < round(self.ends.get(part, 1.0) * steps)


def phases(controls: Sequence[Control], *, steps: int, merge_step: int) -> dict[int, tuple[Strengths, ...]]:
    """The steps in which something changes for a batch, and what acts in every image from then on.

    Args:
        controls: of every image.
        steps: that are run.
        merge_step: last step without regions, -1 for none.
    """
    found: dict[int, tuple[Strengths, ...]] = {}
    last: tuple[Strengths, ...] | None = None
    for step in range(steps):
        now = tuple(control.at(step, steps=steps, merge_step=merge_step) for control in controls)
        if now != last:
            found[step] = last = now
    return found


def without_token(control: Control, shown: Collection[str], *, reworded: Collection[str]) -> str | None:
    """The first region that is weighed or scheduled but has no token; None when there is none.

    Args:
        control: of one photo.
        shown: the regions that have a token.
        reworded: the regions with words of the user's, which need none.
    """
    wanted = [name for name, weight in control.weights.items() if weight > 0] + [*control.starts, *control.ends]
    return next((name for name in wanted if name not in (IDENTITY, *shown, *reworded)), None)


def check_parts(parts: Mapping[str, object], *, known: Sequence[str] = PARTS) -> None:
    """Refuse names that are no part of a photo.

    Raises:
        InvalidSettings: a name is unknown.
    """
    unknown = sorted(set(parts) - set(known))
    if unknown:
        raise InvalidSettings(f"unknown region {unknown[0]!r}; choose from {', '.join(known)}")
