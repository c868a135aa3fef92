"""What draws the portraits of a batch: the generator of this package, or another pipeline."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from consistentid.errors import ConsistentIDError
from consistentid.evaluation.fingerprints import parser_identity
from consistentid.generation.donors import Donors
from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.portrait import Portrait
from consistentid.generation.request import GenerationRequest, PreparedRequest
from consistentid.generation.settings import GenerationSettings

OURS = "ours"  # the maker of every method that is no baseline


@dataclass(frozen=True)
class Wanted:
    """One portrait that shall be drawn.

    Attributes:
        photo: of the person.
        prompt: in words.
        seed: of the start noise.
        settings: everything else.
        beside: photos of others in the same picture.
    """

    photo: Path
    prompt: str
    seed: int
    settings: GenerationSettings
    beside: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Made:
    """What became of it.

    Attributes:
        save: writes the picture as PNG; None when there is none.
        failure: why there is none.
    """

    save: Callable[[Path], object] | None = None
    failure: str | None = None


class PortraitMaker(Protocol):
    """Draws batches."""

    @property
    def identity(self) -> str:
        """Everything besides the wanted portraits that decides about their pixels, for caches."""
        ...

    def make(self, batch: Sequence[Wanted]) -> list[Made]:
        """The portraits of a batch, in one denoising run; one that cannot be drawn does not stop the others."""
        ...


class GeneratorMaker:
    """This package's method.

    Args:
        generator: with the adapter attached.
    """

    def __init__(self, generator: PortraitGenerator) -> None:
        self.generator = generator

    @property
    def identity(self) -> str:
        """See `PortraitMaker.identity`."""
        pipeline, analyzer = self.generator.pipeline, self.generator.analyzer
        parser = "" if analyzer is None else parser_identity(analyzer.parser)
        parts = (self.generator.weights_sha256, pipeline.unet.dtype, pipeline.device, torch.get_num_threads(), parser)
        return " ".join(map(str, parts))

    def make(self, batch: Sequence[Wanted]) -> list[Made]:
        """See `PortraitMaker.make`."""
        made: list[Made | PreparedRequest] = []
        for wanted in batch:
            settings = wanted.settings.model_copy(update={"seed": wanted.seed})
            donors = Donors(beside=wanted.beside)
            try:
                made.append(
                    self.generator.prepare(GenerationRequest(wanted.photo, wanted.prompt, settings, donors=donors))
                )
            except ConsistentIDError as error:
                made.append(Made(failure=str(error)))
        prepared = [one for one in made if isinstance(one, PreparedRequest)]
        try:
            portraits = iter(self.generator.render(prepared, batch_size=len(batch)))
        except ConsistentIDError as error:  # such as numbers that overflow: then for all of the run
            return [one if isinstance(one, Made) else Made(failure=str(error)) for one in made]
        return [one if isinstance(one, Made) else _made(next(portraits)[0]) for one in made]


def _made(portrait: Portrait) -> Made:
    if portrait.withheld:
        return Made(failure="withheld by the model's safety checker")
    return Made(save=portrait.save)
