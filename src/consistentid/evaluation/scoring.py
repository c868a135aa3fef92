"""Pictures with their numbers -> the table of scores."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from consistentid.evaluation.copying import FACTORS, copied
from consistentid.evaluation.diversity import deviation, pairwise_spread
from consistentid.evaluation.image_metrics import set_distance
from consistentid.evaluation.intervals import Estimate, by_subject, mean_estimate
from consistentid.evaluation.measured import Measured
from consistentid.evaluation.pictures import People, Picture
from consistentid.evaluation.verification import pairs_of, roc_estimates
from consistentid.faces.regions import REGION_NAMES


@dataclass(frozen=True)
class Score:
    """One cell of the table.

    Attributes:
        block: of the protocol.
        method: how the portraits were drawn.
        group: of prompts, or "all".
        metric: what was measured.
        value, low, high: with its 95 % interval by people; NaN where there is none.
        subjects: people behind it.
        pictures: portraits that were asked for.
        missing: portraits for which it could not be told; they are not in the value.
    """

    block: str
    method: str
    group: str
    metric: str
    value: float
    low: float
    high: float
    subjects: int
    pictures: int
    missing: int


@dataclass(frozen=True)
class Group:
    """Portraits that are scored together: block, method, group of prompts."""

    block: str
    method: str
    prompts: str
    pictures: Sequence[Picture]

    def score(self, metric: str, estimate: Estimate, *, missing: int = 0) -> Score:
        """A cell of the table."""
        return Score(
            self.block, self.method, self.prompts, metric, estimate.value, estimate.low, estimate.high,
            estimate.subjects, len(self.pictures), missing,
        )  # fmt: skip


def scores_of(group: Group, people: People, *, recognisers: Sequence[str], whole: bool) -> list[Score]:
    """All scores of a group.

    Args:
        group: portraits.
        people: what they are compared with.
        recognisers: judges of identity.
        whole: also what needs all portraits of a method: verification, set distances, variety, copying.
    """
    scores = _means(group)
    if whole:
        for recogniser in recognisers:
            scores += _verification(group, people, recogniser)
        scores += _region_verification(group, people)
        scores += _set_distances(group, people) + _variety(group, recognisers) + _copying(group, people)
    return scores


def _means(group: Group) -> list[Score]:
    """Of every number that a picture has alone."""
    metrics = dict.fromkeys(name for picture in group.pictures for name in picture.numbers)
    scores = []
    for metric in metrics:
        asked = [picture for picture in group.pictures if metric in picture.numbers]
        values = [picture.numbers[metric] for picture in asked]
        means = by_subject(values, [picture.shot.subject for picture in asked])
        scores.append(group.score(metric, mean_estimate(means), missing=int(np.isnan(values).sum())))
    return scores


def _verification(group: Group, people: People, recogniser: str) -> list[Score]:
    names, gallery = people.gallery_of(recogniser)
    rows = {name: row for row, name in enumerate(names)}
    asked = [picture for picture in group.pictures if picture.shot.subject in rows]
    embeddings = [picture.measured.identity.get(recogniser) for picture in asked]
    if len(gallery) < 2:
        return []
    pairs = pairs_of(embeddings, np.array([rows[picture.shot.subject] for picture in asked], int), gallery)
    missing = len(group.pictures) - len(pairs.person)
    estimates = roc_estimates(pairs)
    return [group.score(f"{name} {recogniser}", estimate, missing=missing) for name, estimate in estimates.items()]


def _region_verification(group: Group, people: People) -> list[Score]:
    """How well each region's embedding tells the person: what its similarity is worth."""
    scores = []
    for region in REGION_NAMES:
        names = sorted(name for name, one in people.gallery.items() if region in one.regions)
        rows = {name: row for row, name in enumerate(names)}
        asked = [picture for picture in group.pictures if picture.shot.subject in rows]
        if len(names) < 2 or not asked:
            continue
        embeddings = [_unit(picture.measured.regions.get(region)) for picture in asked]
        gallery = np.array([_unit(people.gallery[name].regions[region]) for name in names])
        pairs = pairs_of(embeddings, np.array([rows[picture.shot.subject] for picture in asked], int), gallery)
        missing = len(group.pictures) - len(pairs.person)
        scores.append(group.score(f"auc fgis {region}", roc_estimates(pairs)["auc"], missing=missing))
    return scores


def _unit(embedding: np.ndarray | None) -> np.ndarray | None:
    return None if embedding is None else embedding / max(1e-12, float(np.linalg.norm(embedding)))


def _set_distances(group: Group, people: People) -> list[Score]:
    """Of aligned faces from those of the gallery's photos of the same people."""
    subjects = sorted({picture.shot.subject for picture in group.pictures})
    real = [face for name in subjects if (face := people.gallery[name].face) is not None]
    ordered = sorted(group.pictures, key=lambda picture: picture.shot)
    made = [picture.measured.face for picture in ordered if picture.measured.face is not None]
    if min(len(real), len(made)) < 2:
        return []
    distance = set_distance(np.array(real), np.array(made))
    missing, nothing = len(group.pictures) - len(made), float("nan")
    return [  # without intervals: a person drawn twice makes a set look less varied than it is
        group.score(name, Estimate(value, nothing, nothing, len(subjects)), missing=missing)
        for name, value in (("fid faces", distance.fid), ("kid faces", distance.kid))
    ]


def _variety(group: Group, recognisers: Sequence[str]) -> list[Score]:
    """Spread over the portraits of one person and prompt."""
    together: dict[tuple[str, str], list[Measured]] = defaultdict(list)
    for picture in sorted(group.pictures, key=lambda picture: picture.shot):
        if picture.measured.attributes is not None:
            together[picture.shot.subject, picture.shot.prompt].append(picture.measured)
    several = {key: found for key, found in together.items() if len(found) > 1}
    if not several:
        return []
    spreads: dict[str, list[float]] = defaultdict(list)
    for found in several.values():
        attributes = [one.attributes for one in found if one.attributes is not None]
        spreads["spread background (Lab)"].append(deviation([one.background_lab for one in attributes]))
        spreads["spread smile"].append(deviation([one.smile for one in attributes]))
        spreads["spread mouth opening"].append(deviation([one.mouth_open for one in attributes]))
        spreads["spread face"].append(pairwise_spread([one.face for one in found if one.face is not None]))
        for name in recognisers:
            kept = [one.identity[name] for one in found if name in one.identity]
            spreads[f"spread identity {name}"].append(pairwise_spread(kept))
        for name in sorted(found[0].images):
            spreads[f"spread {name}"].append(pairwise_spread([one.images[name] for one in found]))
    subjects = [subject for subject, _ in several]
    return [group.score(name, mean_estimate(by_subject(values, subjects))) for name, values in spreads.items()]


def _copying(group: Group, people: People) -> list[Score]:
    """Correlation of pose and expression with the reference, over people."""
    portraits: dict[str, list[np.ndarray]] = defaultdict(list)
    for picture in sorted(group.pictures, key=lambda picture: picture.shot):
        if (factors := _factors(picture.measured)) is not None:
            portraits[picture.shot.subject].append(factors)
    references = {name: found for name, one in people.references.items() if (found := _factors(one)) is not None}
    means = {name: np.mean(rows, axis=0) for name, rows in portraits.items()}
    estimates = copied(references, means)
    scores = [group.score(f"copied {name}", each) for name, each in zip(FACTORS, estimates, strict=False)]
    known = [each.value for each in estimates if np.isfinite(each.value)]
    if known:
        nothing = float("nan")
        whole = Estimate(float(np.mean(known)), nothing, nothing, min(each.subjects for each in estimates))
        scores.append(group.score("copied (mean)", whole))
    return scores


def _factors(measured: Measured) -> np.ndarray | None:
    if measured.pose is None or measured.attributes is None:
        return None
    return np.r_[measured.pose, measured.attributes.smile, measured.attributes.mouth_open]
