"""Every portrait with what was measured on it, and the numbers that follow for it alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from consistentid.evaluation.adherence import gender_axis, leaning, obeys
from consistentid.evaluation.embedders import cosine
from consistentid.evaluation.fgis import region_similarity
from consistentid.evaluation.leak import leak
from consistentid.evaluation.measured import Measured
from consistentid.evaluation.plan import Shot
from consistentid.evaluation.protocols import Prompt
from consistentid.evaluation.recognisers import DlibRecogniser
from consistentid.evaluation.verification import pairs_of, rank1_hits
from consistentid.faces.regions import REGION_NAMES


@dataclass(frozen=True, eq=False)
class Picture:
    """One portrait.

    Attributes:
        shot: which one.
        path: of the picture; None when there is none.
        measured: on it; its `failure` says why there is no picture or no measurement.
        numbers: by metric; NaN where it could not be told.
    """

    shot: Shot
    path: Path | None
    measured: Measured
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class People:
    """What portraits are compared with.

    Attributes:
        gallery: of the photo that each person is recognised by.
        references: of the photo that the portraits are made from.
        genders: where known.
    """

    gallery: Mapping[str, Measured]
    references: Mapping[str, Measured]
    genders: Mapping[str, str]

    def gallery_of(self, recogniser: str) -> tuple[list[str], Float[np.ndarray, "p d"]]:
        """Names and embeddings of everybody whom a recogniser sees in the gallery."""
        names = sorted(name for name, one in self.gallery.items() if recogniser in one.identity)
        return names, np.array([self.gallery[name].identity[recogniser] for name in names])


@dataclass(frozen=True, eq=False)
class Measures:
    """What numbers are wanted.

    Attributes:
        recognisers: names.
        embedders: names of those that look at whole pictures.
        texts: embedding of each prompt's words, by embedder and words.
    """

    recognisers: Sequence[str]
    embedders: Sequence[str] = ()
    texts: Mapping[tuple[str, str], Float[np.ndarray, " d"]] = field(default_factory=dict)


def with_numbers(
    pictures: Sequence[Picture], people: People, prompts: Mapping[str, Prompt], *, measures: Measures
) -> list[Picture]:
    """The pictures with their numbers."""
    by_shot = {picture.shot: picture for picture in pictures}
    hits = {name: _rank1(pictures, people, name) for name in measures.recognisers}
    result = []
    for picture in pictures:
        shot, prompt = picture.shot, prompts.get(picture.shot.prompt)
        numbers = {"face found": float(picture.measured.face is not None)}
        numbers |= {f"rank-1 {name}": hits[name].get(shot, float("nan")) for name in measures.recognisers}
        numbers |= _likeness(picture, people, measures)
        if prompt is not None:
            numbers |= _prompt_numbers(picture, prompt, people, measures)
        if prompt is not None and prompt.opposite and replace(shot, prompt=prompt.opposite) in by_shot:
            numbers["moved as asked"] = _moved(picture, prompts, by_shot, people)
        result.append(Picture(shot, picture.path, picture.measured, numbers))
    return result


def _rank1(pictures: Sequence[Picture], people: People, recogniser: str) -> dict[Shot, float]:
    """Whether each portrait's person is the nearest; a portrait without a face is a miss."""
    names, gallery = people.gallery_of(recogniser)
    rows = {name: row for row, name in enumerate(names)}
    asked = [picture for picture in pictures if picture.shot.subject in rows]
    if len(gallery) < 2:
        return {}
    embeddings = [picture.measured.identity.get(recogniser) for picture in asked]
    pairs = pairs_of(embeddings, np.array([rows[picture.shot.subject] for picture in asked], int), gallery)
    found = iter(rank1_hits(pairs))
    return {
        picture.shot: 0.0 if embedding is None else float(next(found))
        for picture, embedding in zip(asked, embeddings, strict=True)
    }


def _likeness(picture: Picture, people: People, measures: Measures) -> dict[str, float]:
    """Similarities to the person's photos."""
    own, gallery = picture.measured, people.gallery[picture.shot.subject]
    reference = people.references[picture.shot.subject]
    numbers = {f"similarity {name}": _cosine(own.identity, gallery.identity, name) for name in measures.recognisers}
    similarity = region_similarity(own.regions, gallery.regions)
    numbers["fgis"] = similarity.mean
    numbers |= {f"fgis {name}": similarity.regions.get(name, float("nan")) for name in REGION_NAMES}
    numbers |= {f"{name} image": _cosine(own.images, reference.images, name) for name in measures.embedders}
    for name in measures.recognisers if picture.shot.beside else ():
        beside = people.gallery[picture.shot.beside].identity.get(name)
        numbers[f"leak {name}"] = leak(own.identity.get(name), [beside], base=gallery.identity.get(name))
    return numbers


def _cosine(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray], name: str) -> float:
    return float(cosine(first[name], second[name])) if name in first and name in second else float("nan")


def _prompt_numbers(picture: Picture, prompt: Prompt, people: People, measures: Measures) -> dict[str, float]:
    words = prompt.for_gender(people.genders.get(picture.shot.subject))
    texts = {name: text for name in measures.embedders if (text := measures.texts.get((name, words))) is not None}
    numbers = {f"{name} text": _cosine(picture.measured.images, texts, name) for name in texts}
    if set(prompt.asks) - {"gender"}:
        numbers["named as asked"] = obeys(picture.measured, prompt.asks)
    return numbers


def _moved(picture: Picture, prompts: Mapping[str, Prompt], by_shot: Mapping[Shot, Picture], people: People) -> float:
    """Whether the portrait leans further to what was asked than that of the opposite prompt; untold counts as no."""
    shot, prompt = picture.shot, prompts[picture.shot.prompt]
    opposite = str(prompt.opposite)
    other = by_shot[replace(shot, prompt=opposite)]
    womanly = None
    if "gender" in prompt.asks:
        names, gallery = people.gallery_of(DlibRecogniser.name)
        womanly = gender_axis(dict(zip(names, gallery, strict=True)), people.genders, without=shot.subject)
        if womanly is None:
            return float("nan")
    moved = []
    for attribute, asked in prompt.asks.items():
        words = {"asked": asked, "opposite": prompts[opposite].asks[attribute]}
        here, there = (leaning(one.measured, attribute, **words, womanly=womanly) for one in (picture, other))
        moved.append(here > there)
    return float(all(moved))
