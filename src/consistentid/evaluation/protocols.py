"""What is asked of whom: prompts, and which of them are drawn with which methods and people; data, not code."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from consistentid.errors import InvalidData
from consistentid.evaluation.adherence import ATTRIBUTES, known_values
from consistentid.generation.settings import GenerationSettings, explain

_FOLDER = "protocol_data"
Model = TypeVar("Model", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Prompt(_Strict):
    """One prompt.

    Attributes:
        text: `{person}` becomes man, woman, or person where it is not known.
        group: under which results are shown together.
        asks: attributes (see `adherence`) that can be measured.
        opposite: the prompt that asks for the opposite; a portrait must lean further to what is asked than that one.
    """

    text: str = Field(min_length=1)
    group: str = "all"
    asks: dict[str, str] = {}
    opposite: str | None = None

    @model_validator(mode="after")
    def _can_be_told(self) -> "Prompt":
        for attribute, value in self.asks.items():
            if attribute not in ATTRIBUTES or value not in known_values(attribute):
                raise ValueError(f"{attribute} {value!r} cannot be measured")
        return self

    def for_gender(self, gender: str | None) -> str:
        """The words for a person."""
        return self.text.replace("{person}", gender or "person")


class Block(_Strict):
    """Part of a protocol: these methods draw these prompts for the first so many people.

    Attributes:
        methods: names of methods.
        prompts: names of prompts; empty means all.
        subjects: how many people, evenly spread over all; None means all.
        images: portraits of each, with a seed of their own.
    """

    methods: tuple[str, ...] = Field(min_length=1)
    prompts: tuple[str, ...] = ()
    subjects: int | None = Field(default=None, ge=1)
    images: int = Field(default=1, ge=1)


class Protocol(_Strict):
    """A protocol.

    Attributes:
        about: where it comes from, in a sentence.
        subjects: how many people it needs; with fewer the report says so.
        held_out: only people whom training never sees (dataset.holdout); needs `portraits.jsonl` beside the photos.
        people_per_picture: 1, or 2 for pairs.
        methods: settings of each method, besides those of the configuration.
        sweeps: for trade-off curves: methods named `NAME=VALUE` with one setting changed.
        prompts: by name.
        blocks: by name.
    """

    about: str
    subjects: int = Field(ge=1)
    held_out: bool = False
    people_per_picture: int = Field(default=1, ge=1, le=2)
    methods: dict[str, dict[str, object]] = {"full": {}}
    sweeps: dict[str, tuple[float, ...]] = {}
    prompts: dict[str, Prompt] = Field(min_length=1)
    blocks: dict[str, Block] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_exist(self) -> "Protocol":
        for name, prompt in self.prompts.items():
            opposite = prompt.opposite
            if opposite is None:
                continue
            other = self.prompts.get(opposite)
            if other is None or other.opposite != name or other.asks.keys() != prompt.asks.keys() or not prompt.asks:
                raise ValueError(
                    f"prompt {name}: {opposite} must ask for another value of the same, and name it opposite"
                )
        for name, block in self.blocks.items():
            if missing := [prompt for prompt in block.prompts if prompt not in self.prompts]:
                raise ValueError(f"block {name}: there is no prompt {missing[0]}")
        for settings in self.methods.values():
            GenerationSettings.model_validate(settings)
        return self

    def all_methods(self) -> dict[str, dict[str, object]]:
        """Methods and the points of the sweeps."""
        points: dict[str, dict[str, object]] = {
            f"{setting}={value:g}": {setting: value} for setting, values in self.sweeps.items() for value in values
        }
        return {**self.methods, **points}

    def methods_of(self, block: Block) -> tuple[str, ...]:
        """Names of a block's methods; `sweeps` stands for all their points."""
        points = tuple(name for name in self.all_methods() if name not in self.methods)
        return tuple(name for given in block.methods for name in (points if given == "sweeps" else (given,)))

    def prompts_of(self, block: Block) -> Mapping[str, Prompt]:
        """Prompts of a block."""
        return {name: self.prompts[name] for name in block.prompts} if block.prompts else self.prompts


def protocol_names() -> list[str]:
    """Protocols in the package."""
    folder = files("consistentid.evaluation") / _FOLDER
    return sorted(path.name.removesuffix(".yaml") for path in folder.iterdir() if path.name.endswith(".yaml"))


def load_protocol(name: str | Path) -> Protocol:
    """A protocol of the package by name, or a YAML file.

    Raises:
        InvalidData: there is no such protocol, or a value is wrong.
    """
    inside = str(name) in protocol_names()
    try:
        text = (
            (files("consistentid.evaluation") / _FOLDER / f"{name}.yaml").read_text()
            if inside
            else Path(name).read_text()
        )
    except OSError:
        raise InvalidData(
            f"there is no protocol {str(name)!r}; choose from {', '.join(protocol_names())}, or a YAML file"
        ) from None
    return parse_yaml(text, Protocol, name=str(name))


def parse_yaml(text: str, model: type[Model], *, name: str) -> Model:
    """A YAML text as a model.

    Raises:
        InvalidData: it is no YAML, or a value is wrong.
    """
    try:
        return model.model_validate(yaml.safe_load(text) or {})
    except yaml.YAMLError as error:
        raise InvalidData(f"{name} is no YAML: {error}") from error
    except ValidationError as error:
        raise InvalidData(f"{name}: {explain(error)}") from None
