"""The work of an evaluation: draw a batch, measure a picture. Results are files, named by what they depend on."""

import json
import logging
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from consistentid.evaluation.fingerprints import code_sha256, file_sha256, key
from consistentid.evaluation.judge import Judge
from consistentid.evaluation.makers import Made, PortraitMaker, Wanted
from consistentid.evaluation.measured import Measured, load_measured, save_measured
from consistentid.generation.portrait import write_text
from consistentid.generation.versions import library_versions

logger = logging.getLogger(__name__)

_READING_CODE = ("faces", "images.py", "weight_files.py")
DRAWING_CODE = (*_READING_CODE, "prompting", "identity", "generation", "evaluation/face_id.py", "evaluation/makers.py")
MEASURING_CODE = (*_READING_CODE, "identity/dlib_image_encoder.py") + tuple(
    f"evaluation/{name}.py" for name in ("copying", "embedders", "fgis", "judge", "measured", "recognisers")
)


@dataclass(frozen=True)
class DrawnBatch:
    """What became of a batch.

    Attributes:
        pictures: file of each portrait below the cache, None where there is none.
        failures: why there is none.
        seconds: to prepare and draw the batch.
        peak_bytes: most memory the process had used by then.
    """

    pictures: tuple[str | None, ...]
    failures: tuple[str | None, ...]
    seconds: float
    peak_bytes: int


class Worker:
    """Draws and measures into a folder; what is there already is not done again.

    Args:
        makers: of each method.
        judge: measures.
        cache: the folder.
    """

    def __init__(self, makers: Mapping[str, Callable[[], PortraitMaker]], judge: Judge, cache: Path) -> None:
        self._makers, self.judge, self.cache = makers, judge, cache
        self._loaded: dict[str, PortraitMaker] = {}

    def maker(self, name: str) -> PortraitMaker:
        """A maker, loaded when it is first needed."""
        if name not in self._loaded:
            self._loaded[name] = self._makers[name]()
        return self._loaded[name]

    @property
    def identities(self) -> dict[str, str]:
        """`PortraitMaker.identity` of every maker that was needed."""
        return {name: maker.identity for name, maker in self._loaded.items()}

    def draw(self, maker: str, batch: Sequence[Wanted]) -> DrawnBatch:
        """The portraits of a batch."""
        name = self._batch_key(maker, batch)
        record = self.cache / "portraits" / f"{name}.json"
        if record.is_file():
            known = json.loads(record.read_text())
            return DrawnBatch(tuple(known["pictures"]), tuple(known["failures"]), known["seconds"], known["peak_bytes"])
        start = time.perf_counter()
        made = self.maker(maker).make(batch)
        drawn = self._saved(name, made, seconds=time.perf_counter() - start)
        write_text(record, json.dumps(asdict(drawn)))  # last: the batch is whole when its record is there
        return drawn

    def measure(self, picture: Path, *, rank: int = 0) -> Measured:
        """What the judge says of a picture; of the face with that rank by size."""
        if not picture.is_file():
            return Measured(failure=f"{picture.name} does not exist")
        path = self.cache / "measured" / f"{self._picture_key(picture, rank)}.safetensors"
        known = load_measured(path)
        if known is None:
            known = self.judge.measure(picture, rank=rank)
            save_measured(known, path)
        return known

    def draw_and_measure(self, maker: str, batch: Sequence[Wanted]) -> DrawnBatch:
        """Both, for a batch."""
        drawn = self.draw(maker, batch)
        for picture in drawn.pictures:
            if picture is not None:
                self.measure(self.cache / picture)
        return drawn

    def _saved(self, name: str, made: Sequence[Made], *, seconds: float) -> DrawnBatch:
        pictures: list[str | None] = []
        for row, one in enumerate(made):
            pictures.append(None if one.save is None else f"portraits/{name}-{row}.png")
            if one.save is not None:
                one.save(self.cache / str(pictures[-1]))
        return DrawnBatch(tuple(pictures), tuple(one.failure for one in made), seconds, _peak_bytes())

    def _batch_key(self, maker: str, batch: Sequence[Wanted]) -> str:
        return key(
            maker=self.maker(maker).identity,
            code=code_sha256(*DRAWING_CODE),
            libraries=library_versions(),
            batch=[
                [
                    *(file_sha256(photo) for photo in (one.photo, *one.beside)),
                    one.prompt,
                    one.seed,
                    one.settings.model_dump(mode="json"),
                ]
                for one in batch
            ],
        )

    def _picture_key(self, picture: Path, rank: int) -> str:
        return key(
            rank=rank,
            judge=self.judge.identity,
            code=code_sha256(*MEASURING_CODE),
            libraries=library_versions(),
            threads=torch.get_num_threads(),
            picture=file_sha256(picture),
        )


def _peak_bytes() -> int:
    """Of the graphics card where one is used, else of this process."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
