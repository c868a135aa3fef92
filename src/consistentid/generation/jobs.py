"""Many portraits from a file: one JSON job per line, batched across jobs, resumed, a bad job never stops the others."""

import codecs
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field, ValidationError, field_validator

from consistentid.errors import ConsistentIDError, GenerationCancelled, InvalidData
from consistentid.generation.donors import Donors
from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.places import with_masks
from consistentid.generation.portrait import Portrait, read_settings
from consistentid.generation.request import GenerationRequest, PreparedRequest
from consistentid.generation.settings import GenerationSettings, explain
from consistentid.images import load_photo

logger = logging.getLogger(__name__)

_NAME_BYTES = 200  # file systems allow 255, with _7.png and the temporary name
_BATCHES_AHEAD = 4  # jobs are prepared until they fill so many batches, so that equal settings find each other


class Job(GenerationSettings):
    """One line of a job file: a request with a name for its pictures, and photos of others as in `Donors`."""

    name: str = Field(min_length=1)
    photo: str = Field(min_length=1)
    prompt: str
    parts: dict[str, str] = Field(default_factory=dict)
    blend_with: str | None = None
    same: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()

    @field_validator("name")
    @classmethod
    def _is_a_plain_name(cls, name: str) -> str:
        if len(name.encode()) > _NAME_BYTES:
            raise ValueError(f"the name must be at most {_NAME_BYTES} bytes long")
        if name in {".", ".."} or any(c in '/\\:*?"<>|' or ord(c) < 32 for c in name) or ".." in name:
            raise ValueError("the name must be a plain file name, without separators or '..'")
        return name

    def outputs(self, folder: Path) -> list[Path]:
        """The files this job writes."""
        if self.num_images == 1:
            return [folder / f"{self.name}.png"]
        return [folder / f"{self.name}_{k}.png" for k in range(self.num_images)]

    def settings(self) -> GenerationSettings:
        """Everything but name, photos and prompt."""
        return GenerationSettings(**self.model_dump(include=set(GenerationSettings.model_fields)))

    def request(self, photos: Path) -> GenerationRequest:
        """What is asked for; relative paths that do not exist from the current folder are looked up in another."""
        donors = Donors(
            {part: _photo_path(photo, photos) for part, photo in self.parts.items()},
            None if self.blend_with is None else _photo_path(self.blend_with, photos),
            tuple(_photo_path(photo, photos) for photo in self.same),
            tuple(_photo_path(photo, photos) for photo in self.beside),
        )
        settings = self.settings()
        settings = settings.model_copy(update={"places": with_masks(settings.places, photos)})
        return GenerationRequest(_photo_path(self.photo, photos), self.prompt, settings, donors=donors)


@dataclass(frozen=True)
class BadJob:
    """A job that was not done, and why in one sentence."""

    name: str
    reason: str


@dataclass
class JobReport:
    """What became of a job file."""

    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    bad: list[BadJob] = field(default_factory=list)


def read_jobs(path: Path) -> tuple[list[Job], list[BadJob]]:
    """The jobs of a file, and the lines that are none.

    Raises:
        InvalidData: the file cannot be read, or holds no line.
    """
    try:
        lines = path.read_bytes().removeprefix(codecs.BOM_UTF8).split(b"\n")
    except OSError as error:
        raise InvalidData(f"{path} cannot be read as a job file ({error})") from None
    jobs: list[Job] = []
    bad: list[BadJob] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            jobs.append(Job.model_validate_json(line))
        except ValidationError as error:
            bad.append(BadJob(f"line {number}", explain(error)))
    if not jobs and not bad:
        raise InvalidData(f"{path} holds no job; write one JSON object per line with name, photo and prompt")
    return _without_clashes(jobs, bad)


def run_jobs(
    generator: PortraitGenerator,
    jobs: Sequence[Job],
    *,
    out: Path,
    photos: Path,
    cancel: Callable[[], bool] | None = None,
    batch_size: int | None = None,
    progress: bool = False,
) -> JobReport:
    """Make every portrait that is not there yet.

    Args:
        generator: makes them.
        jobs: with distinct outputs.
        out: folder of the pictures.
        photos: where relative photo paths are looked up when they do not exist from the current folder.
        cancel: asked after every denoising step.
        batch_size: images in one denoising run.
        progress: show a bar for every group of batches.

    Raises:
        GenerationCancelled: `cancel` said so; finished jobs stay, a later run goes on after them.
    """
    report = JobReport()
    size = batch_size or generator.batch_size
    waiting: list[tuple[Job, PreparedRequest]] = []

    def render() -> None:
        _render(generator, waiting, out=out, report=report, cancel=cancel, batch_size=size, progress=progress)
        waiting.clear()

    for job in jobs:
        try:
            request = job.request(photos)
            if _is_done(generator, request, job.outputs(out)):
                report.skipped.append(job.name)
                continue
            waiting.append((job, generator.prepare(request)))
        except ConsistentIDError as error:
            report.bad.append(BadJob(job.name, str(error)))
        if sum(waited.num_images for waited, _ in waiting) >= size * _BATCHES_AHEAD:
            render()
    render()
    return report


def _render(
    generator: PortraitGenerator,
    waiting: Sequence[tuple[Job, PreparedRequest]],
    *,
    out: Path,
    report: JobReport,
    cancel: Callable[[], bool] | None,
    batch_size: int,
    progress: bool,
) -> None:
    """Make and save what was prepared; when a batch fails, its jobs are tried one by one to find the bad one."""
    try:
        made = generator.render(
            [prepared for _, prepared in waiting], cancel=cancel, batch_size=batch_size, progress=progress
        )
    except GenerationCancelled:
        raise
    except (ConsistentIDError, RuntimeError, ValueError) as error:
        if len(waiting) == 1:
            report.bad.append(BadJob(waiting[0][0].name, f"{type(error).__name__}: {error}"))
            return
        logger.warning("a group of %d jobs failed (%s); trying them one by one", len(waiting), error)
        for one in waiting:
            _render(generator, [one], out=out, report=report, cancel=cancel, batch_size=batch_size, progress=progress)
        return
    for (job, _), portraits in zip(waiting, made, strict=True):
        _save(job, portraits, out=out, report=report)


def _save(job: Job, portraits: Iterable[Portrait], *, out: Path, report: JobReport) -> None:
    try:
        withheld = []
        for portrait, path in zip(portraits, job.outputs(out), strict=True):
            if portrait.withheld:
                withheld.append(path.name)
            else:
                portrait.save(path)
    except ConsistentIDError as error:
        report.bad.append(BadJob(job.name, str(error)))
        return
    if withheld:
        report.bad.append(BadJob(job.name, f"the safety checker withheld {', '.join(withheld)}"))
    else:
        report.done.append(job.name)


def _is_done(generator: PortraitGenerator, request: GenerationRequest, outputs: Sequence[Path]) -> bool:
    """Whether all pictures of a job exist and were made from the same request."""
    if not all(path.is_file() for path in outputs):
        return False
    try:
        records = [read_settings(path) for path in outputs]
    except ConsistentIDError:  # something else has this name; it is made anew
        return False
    wanted = generator.expected(request, photo=load_photo(request.photo))  # type: ignore[arg-type]
    return all(record.index == k and record.matches(wanted) for k, record in enumerate(records))


def _photo_path(photo: str, photos: Path) -> Path:
    path = Path(photo).expanduser()
    return path if path.is_absolute() or os.path.exists(path) else photos / path  # noqa: PTH110  exists() may raise


def _without_clashes(jobs: Iterable[Job], bad: Iterable[BadJob]) -> tuple[list[Job], list[BadJob]]:
    """Drop jobs that would write over another one's pictures; the first keeps its name."""
    kept, refused = [], list(bad)
    taken: Counter[Path] = Counter()
    for job in jobs:
        outputs = job.outputs(Path())
        if any(taken[path] for path in outputs):
            refused.append(BadJob(job.name, "an earlier job writes a picture of the same name; rename one of them"))
            continue
        taken.update(outputs)
        kept.append(job)
    return kept, refused
