"""A worker: one model on one device, which makes the portraits of compatible jobs together."""

import logging
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path

from PIL import Image

from consistentid.errors import ConsistentIDError, GenerationCancelled
from consistentid.generation.callbacks import StepReport
from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.in_place import Place, placed
from consistentid.generation.portrait import Portrait
from consistentid.generation.preview import decoded
from consistentid.generation.request import Shot, batches
from consistentid.web.jobs import JobState, PortraitJob
from consistentid.web.metrics import Metrics
from consistentid.web.queue import JobQueue, photo_file, portrait_file, record_file
from consistentid.web.uploads import generation_request, picture_into

logger = logging.getLogger(__name__)

_IDLE = 0.05  # seconds between two looks into an empty queue
BROKEN = "the server failed while it made this portrait; its log says why"


@dataclass(eq=False)
class _Task:
    """A job that the worker holds.

    Attributes:
        job: as it was claimed.
        shots: its images.
        place: in the picture that the person is put into; None when there is none.
        steps: denoising steps of all runs that it takes part in.
        step: of these, done in earlier runs.
        portraits: made so far, by image.
        is_held: whether it is still wanted.
    """

    job: PortraitJob
    shots: list[Shot]
    place: Place | None = None
    steps: int = 0
    step: int = 0
    portraits: dict[int, Portrait] = field(default_factory=dict)
    is_held: bool = True


class Worker:
    """Empties a queue, batch by batch, in a thread of its own.

    Args:
        queue: of the jobs.
        generator: makes the portraits.
        name: unique among all processes that share the queue.
        metrics: what was done.
    """

    def __init__(self, queue: JobQueue, generator: PortraitGenerator, *, name: str, metrics: Metrics) -> None:
        self.queue = queue
        self.generator = generator
        self.name = name
        self.metrics = metrics
        self._stop = threading.Event()
        self._abort = threading.Event()
        self._is_busy = False
        self._threads = [
            threading.Thread(target=target, name=f"{name}-{target.__name__}", daemon=True)
            for target in (self._run, self._heartbeat)
        ]

    def start(self) -> None:
        """Begin to work."""
        for thread in self._threads:
            thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether its thread runs."""
        return self._threads[0].is_alive()

    def stop(self) -> None:
        """Take no more jobs; what was begun is finished."""
        self._stop.set()

    def abort(self) -> None:
        """Stop after the current step; what was begun is queued again."""
        self._stop.set()
        self._abort.set()

    def join(self, timeout: float) -> bool:
        """Wait for the thread; whether it has ended."""
        if self._threads[0].ident is not None:  # it was started
            self._threads[0].join(timeout)
        return not self.is_alive

    def _heartbeat(self) -> None:
        """Renew the lease of what is worked on."""
        lease = self.queue.config.lease
        while self.is_alive:
            self._threads[0].join(lease / 3)
            if self._is_busy:
                try:
                    self.queue.jobs.renew(self.name, lease=lease)
                except Exception:  # the next one may succeed
                    logger.exception("a lease could not be renewed")

    def _run(self) -> None:
        while not self._stop.wait(_IDLE):
            try:
                self._empty_queue()
            except Exception:  # the worker outlives a disk that is full for a while
                logger.exception("the worker failed; it goes on")
                self._stop.wait(1)
        self.queue.jobs.release(self.name)

    def _empty_queue(self) -> None:
        config, jobs = self.queue.config, self.queue.jobs
        while jobs.queued() and not self._stop.is_set():
            time.sleep(config.batch_delay)
            claimed = jobs.claim(self.name, max_images=config.batch_size, lease=config.lease)
            self._is_busy = True
            try:
                self._work(claimed)
            except Exception:
                self._is_busy = False
                jobs.renew(self.name, lease=-1)  # so that the sweeper queues them again, or gives them up
                raise
            self._is_busy = False

    def _work(self, claimed: Sequence[PortraitJob]) -> None:
        tasks = [task for task in map(self._prepared, claimed) if task is not None]
        shots = {id(shot): task for task in tasks for shot in task.shots}
        runs = batches((shot for task in tasks for shot in task.shots), batch_size=self.queue.config.batch_size)
        for run in runs:
            for task in {shots[id(shot)] for shot in run}:
                task.steps += run[0].prepared.settings.steps or 0
        for run in runs:
            self._rendered([(shots[id(shot)], shot) for shot in run])

    def _prepared(self, job: PortraitJob) -> _Task | None:
        """A job with its photo analysed; None when it cannot be made, or is not wanted any more."""
        if self._abort.is_set() or not self.queue.jobs.progress(job.id, self.name, step=0, steps=0, preview=None):
            return None
        photos = [(role, self.queue.files.get(job.id, photo_file(k)) or b"") for k, role in enumerate(job.roles)]
        try:
            asked, into = generation_request(job.request, photos), picture_into(photos)
            face = "largest" if job.request.into_face is None else job.request.into_face
            place = None if into is None else placed(self.generator, asked, into, face=face)
            prepared = self.generator.prepare(asked) if place is None else place.prepared
        except ConsistentIDError as error:
            self._end(job, JobState.FAILED, error=str(error))
            return None
        except Exception:  # a bad photo must not take the worker with it
            logger.exception("a job could not be prepared")
            self._end(job, JobState.FAILED, error=BROKEN)
            return None
        return _Task(job, [Shot(prepared, k) for k in range(prepared.settings.num_images)], place)

    def _rendered(self, run: "list[tuple[_Task, Shot]]") -> None:
        """One denoising run; when it fails, its jobs are tried one by one to find the bad one."""
        run = [(task, shot) for task, shot in run if task.is_held]
        if not run or self._abort.is_set():
            return
        tasks = list(dict.fromkeys(task for task, _ in run))
        begun = time.perf_counter()
        try:
            portraits = self.generator.renderer.portraits(
                [shot for _, shot in run],
                batch_size=len(run),
                cancel=lambda: self._abort.is_set() or not any(task.is_held for task in tasks),
                callback=lambda report: self._report(run, report),
            )
            places = [task.place for task, _ in run]
            made = [
                one if place is None else place.laid_back(one) for one, place in zip(portraits, places, strict=True)
            ]
        except GenerationCancelled:
            return
        except Exception as error:  # out of memory, above all
            if len(tasks) > 1:
                logger.warning("a run of %d jobs failed (%s); trying them one by one", len(tasks), type(error).__name__)
                for task in tasks:
                    self._rendered([pair for pair in run if pair[0] is task])
                return
            logger.exception("a job failed")
            tasks[0].is_held = False
            self._end(
                tasks[0].job, JobState.FAILED, error=str(error) if isinstance(error, ConsistentIDError) else BROKEN
            )
            return
        self.metrics.run(images=len(run), seconds=time.perf_counter() - begun)
        for (task, shot), portrait in zip(run, made, strict=True):
            task.portraits[shot.index] = portrait
        for task in tasks:
            task.step += run[0][1].prepared.settings.steps or 0
            if task.is_held and len(task.portraits) == len(task.shots):
                self._save(task)

    def _report(self, run: "list[tuple[_Task, Shot]]", report: StepReport) -> None:
        """Tell every job of a run how far it is, and see which are still wanted."""
        first: dict[_Task, int] = {}
        for row, (task, _) in enumerate(run):
            first.setdefault(task, row)
        held = {task: row for task, row in first.items() if task.is_held}
        every = self.queue.config.preview_every
        previews: list[bytes | None] = [None] * len(held)
        if held and every and report.step % every == 0 and report.step < report.steps:
            pictures = decoded(self.generator.pipeline, report.predicted()[list(held.values())])
            flags = self.generator.renderer.flagged(pictures)
            side = self.queue.config.preview_side
            previews = [None if flag else _jpeg(one, side=side) for one, flag in zip(pictures, flags, strict=True)]
        for task, preview in zip(held, previews, strict=True):
            task.is_held = self.queue.jobs.progress(
                task.job.id, self.name, step=task.step + report.step, steps=task.steps, preview=preview
            )

    def _save(self, task: _Task) -> None:
        """Write the portraits, then say that they are there."""
        withheld = []
        with tempfile.TemporaryDirectory() as folder:
            for index, portrait in sorted(task.portraits.items()):
                if portrait.withheld:
                    withheld.append(index)
                    continue
                given = replace(portrait, settings=portrait.settings.without_folders())  # no paths of the server
                path = given.save(Path(folder) / portrait_file(index))
                self.queue.files.put(task.job.id, path.name, path.read_bytes())
                self.queue.files.put(task.job.id, record_file(index), given.settings.model_dump_json().encode())
        done = {"step": task.steps, "steps": task.steps, "images": len(task.portraits), "withheld": tuple(withheld)}
        self._end(task.job, JobState.SUCCEEDED, **done)

    def _end(self, job: PortraitJob, state: JobState, **values: object) -> None:
        """Write a job's end; its photos, and all of it when it was deleted meanwhile, go."""
        ended = job.model_copy(update={"state": state, **values})
        if self.queue.jobs.finish(ended, self.name):
            self.queue.files.delete(job.id, [photo_file(index) for index in range(len(job.roles))])
            self.metrics.ended(state, seconds=time.time() - job.created)
            return
        now = self.queue.jobs.get(job.id)
        if now is None or now.state is JobState.CANCELLED:
            self.queue.files.delete(job.id)


def _jpeg(picture: Image.Image, *, side: int) -> bytes:
    picture.thumbnail((side, side))
    content = BytesIO()
    picture.save(content, "JPEG", quality=80)
    return content.getvalue()
