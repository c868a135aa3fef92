"""Presets as pictures: prompts to begin with, each with a portrait that the embedded model made of it."""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

_FOLDER = files("consistentid.web.ui")


@dataclass(frozen=True)
class Preset:
    """A prompt to begin with.

    Attributes:
        name: on the button.
        picture: file name, below `presets/`.
        prompt: what the button writes.
    """

    name: str
    picture: str
    prompt: str

    @property
    def path(self) -> Path:
        """Of the picture."""
        return Path(str(_FOLDER / "presets" / self.picture))


@cache
def presets() -> tuple[Preset, ...]:
    """All of `presets.json`."""
    return tuple(Preset(**each) for each in json.loads((_FOLDER / "presets.json").read_text(encoding="utf-8")))
