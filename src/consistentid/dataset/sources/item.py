"""What every item is: where a photo is, and what is stated of it. Items travel to workers, photos do not."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict

_GENDERS: dict[object, Literal["man", "woman"]] = {"man": "man", "male": "man", "woman": "woman", "female": "woman"}
_NAMES: dict[str, tuple[str, ...]] = {  # how sources call what they state
    "person": ("person", "identity"),
    "source": ("source",),
    "licence": ("licence", "license"),
    "url": ("url",),
    "caption": ("caption", "text"),
    "facial_caption": ("facial_caption",),
}
STATED = (*(name for names in _NAMES.values() for name in names), "gender", "gender_estimated", "age")


class Rejection(Exception):
    """A photo is left out of the dataset.

    Attributes:
        rule: which rule it breaks; counted.
        reason: one sentence.
    """

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(reason)
        self.rule = rule
        self.reason = reason


class About(BaseModel):
    """What a source states of a photo; None: nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    person: str | None = None
    source: str | None = None
    licence: str | None = None
    url: str | None = None
    caption: str | None = None
    facial_caption: str | None = None
    gender: Literal["man", "woman"] | None = None
    gender_estimated: Literal["man", "woman"] | None = None
    age: int | None = None

    @classmethod
    def of(cls, stated: Mapping[str, Any]) -> Self:
        """What is understood of metadata; other keys, and values of other kinds, state nothing."""
        found: dict[str, Any] = {}
        for field, names in _NAMES.items():
            values = (stated.get(name) for name in names)
            found[field] = next((str(value) for value in values if isinstance(value, str | int) and value != ""), None)
        genders = {key: _GENDERS.get(str(stated.get(key)).lower()) for key in ("gender", "gender_estimated")}
        age = stated.get("age")
        is_age = isinstance(age, int | float) and 0 <= age <= 130
        return cls(**found, **genders, age=int(age) if is_age else None)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Content:
    """An item, read.

    Attributes:
        photo: the file's bytes.
        about: what is stated of it.
        label_map: bytes of an image of classes, when the source has one.
        identity_embedding: when the source has one.
    """

    photo: bytes
    about: About
    label_map: bytes | None = None
    identity_embedding: Float[np.ndarray, " d"] | None = None


class BaseItem(BaseModel):
    """A photo that a source lists.

    Attributes:
        source: name of the source, where nothing else is stated.
        origin: path or key of the photo inside the source.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    origin: str


class BrokenItem(BaseItem):
    """The rest of a file that cannot be listed."""

    kind: Literal["broken"] = "broken"
    reason: str

    def read(self) -> Content:
        """Nothing.

        Raises:
            Rejection: always.
        """
        raise Rejection("unreadable", self.reason)


def bytes_of(path: Path, offset: int = 0, size: int = -1) -> bytes:
    """Bytes of a file, or of a part of it.

    Raises:
        Rejection: the file cannot be opened.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(size)
    except OSError as error:
        raise Rejection("missing", f"{path.name} cannot be opened ({error.strerror})") from error
