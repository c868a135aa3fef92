"""Anybody's pictures: a folder whose names say who and what each picture shows.

FOLDER/METHOD/PERSON/PROMPT.png         or PROMPT_0.png, PROMPT_1.png, … for several of one prompt
FOLDER/METHOD/PERSON+PERSON/PROMPT.png  where a protocol has two people in a picture
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from consistentid.dataset.sources.files import photo_files
from consistentid.errors import InvalidData
from consistentid.evaluation.embedders import cosine
from consistentid.evaluation.measured import Measured
from consistentid.evaluation.pictures import People, Picture
from consistentid.evaluation.plan import Shot
from consistentid.evaluation.protocols import Protocol
from consistentid.evaluation.worker import Worker

_NAME = re.compile(r"(?P<prompt>.+?)(?:_(?P<index>\d+))?")


@dataclass(frozen=True)
class NamedPicture:
    """One file.

    Attributes:
        path: of the picture.
        method, people, prompt, index: what its name says.
    """

    path: Path
    method: str
    people: tuple[str, ...]
    prompt: str
    index: int


def read_folder(folder: Path, protocol: Protocol, subjects: Sequence[str]) -> tuple[list[NamedPicture], dict[str, str]]:
    """The pictures whose names are understood, and why the others are not.

    Raises:
        InvalidData: the folder is missing, or none is understood.
    """
    found: list[NamedPicture] = []
    refused: dict[str, str] = {}
    places: dict[tuple[str, frozenset[str], str, int], str] = {}
    for path in photo_files(folder):
        name = path.relative_to(folder).as_posix()
        try:
            named = _named(path, folder, protocol, subjects)
        except InvalidData as error:
            refused[name] = str(error)
            continue
        place = (named.method, frozenset(named.people), named.prompt, named.index)
        if place in places:
            refused[name] = f"stands for the same picture as {places[place]}"
        else:
            places[place] = name
            found.append(named)
    if not found:
        first = next(iter(refused.items()), None)
        reason = f"; {first[0]}: {first[1]}" if first else ""
        raise InvalidData(f"{folder} holds no METHOD/PERSON/PROMPT.png of this protocol and these people{reason}")
    return found, refused


def _named(path: Path, folder: Path, protocol: Protocol, subjects: Sequence[str]) -> NamedPicture:
    parts = path.relative_to(folder).parts
    if len(parts) != 3:
        raise InvalidData("not METHOD/PERSON/PROMPT.png")
    people = tuple(parts[1].split("+")) if protocol.people_per_picture > 1 else (parts[1],)
    if len(people) != protocol.people_per_picture:
        raise InvalidData(f"shows {len(people)} people, the protocol has {protocol.people_per_picture}")
    if len(set(people)) < len(people):
        raise InvalidData("names one person twice")
    if unknown := [name for name in people if name not in subjects]:
        raise InvalidData(f"{unknown[0]} is none of the people that can be used")
    exact = path.stem in protocol.prompts
    match = _NAME.fullmatch(path.stem)
    prompt, index = (path.stem, None) if exact or match is None else (match["prompt"], match["index"])
    if prompt not in protocol.prompts:
        raise InvalidData(f"{prompt} is no prompt of the protocol")
    return NamedPicture(path, parts[0], people, prompt, int(index or 0))


def measured_pictures(found: Sequence[NamedPicture], people: People, worker: Worker) -> list[Picture]:
    """Measure pictures."""
    shots = [(Shot(one.method, one.prompt, one.index, *one.people), one.path) for one in found]
    return [picture for shot, path in shots for picture in pictures_of(shot, path, people, worker)]


def pictures_of(shot: Shot, path: Path, people: People, worker: Worker) -> list[Picture]:
    """A file as a picture of every person in it; with two of them, each face is given to the one it is more like."""
    shots = shot.of_each
    faces = [worker.measure(path, rank=rank) for rank in range(len(shots))]
    assigned = _assigned(faces, [one.subject for one in shots], people)
    return [Picture(one, path, measured) for one, measured in zip(shots, assigned, strict=True)]


def _assigned(faces: Sequence[Measured], names: Sequence[str], people: People) -> list[Measured]:
    """The faces in the order of the names, so that the sum of similarities is largest."""
    from scipy.optimize import linear_sum_assignment

    if len(faces) == 1:
        return list(faces)
    gains = np.array([[_likeness(face, people.gallery[name]) for face in faces] for name in names])
    _, columns = linear_sum_assignment(gains, maximize=True)
    return [faces[column] for column in columns]


def _likeness(first: Measured, second: Measured) -> float:
    """Mean cosine over the recognisers that saw both; -1 without any."""
    shared = sorted(first.identity.keys() & second.identity.keys())
    return float(np.mean([cosine(first.identity[name], second.identity[name]) for name in shared])) if shared else -1.0
