"""The job queue: submit, follow, cancel, fetch, delete. Front doors use it in process; workers empty it."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence

from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.settings import PortraitSettings
from consistentid.web.config import ServerConfig
from consistentid.web.errors import KeyReused, NotFinished, NotServing, UnknownJob
from consistentid.web.files import FolderFileStore
from consistentid.web.jobs import JobState, Photos, PortraitJob, PortraitRequest, Progress
from consistentid.web.redis_store import RedisJobStore
from consistentid.web.s3_files import S3FileStore
from consistentid.web.sqlite_store import SqliteJobStore
from consistentid.web.store import FileStore, JobStore
from consistentid.web.uploads import check_request

logger = logging.getLogger(__name__)

POLL = 0.1  # seconds between two looks at a job that is followed


class JobQueue:
    """Jobs of all front doors and workers.

    Args:
        config: limits.
        jobs: the queue itself.
        files: photos and portraits.

    Attributes:
        generator: checks requests before they are queued; None where no model is loaded.
        is_open: whether jobs are accepted.
    """

    def __init__(self, config: ServerConfig, jobs: JobStore, files: FileStore) -> None:
        self.config = config
        self.jobs = jobs
        self.files = files
        self.generator: PortraitGenerator | None = None
        self.is_open = True
        self._on_deletion: list[Callable[[Sequence[str]], None]] = []

    @classmethod
    def open(cls, config: ServerConfig) -> "JobQueue":
        """The queue that a configuration describes.

        Raises:
            InvalidSettings: its store cannot be used.
        """
        jobs: JobStore
        files: FileStore
        if config.redis_url is None:
            jobs = SqliteJobStore(config.store / "jobs.sqlite")
        else:
            jobs = RedisJobStore(config.redis_url.get_secret_value())
        if config.s3_bucket is None:
            files = FolderFileStore(config.store / "files")
        else:
            files = S3FileStore(config.s3_bucket, endpoint=config.s3_endpoint)
        return cls(config, jobs, files)

    def submit(
        self, request: PortraitRequest, photos: Photos, *, owner: str, idempotency_key: str | None = None
    ) -> PortraitJob:
        """Queue a job.

        Args:
            request: what is asked for.
            photos: role and file content: the person's own (`jobs.PHOTO`) first, then those of `donors.Donors.by_role`.
            owner: whose job it is.
            idempotency_key: the same key with the same request gives the same job.

        Raises:
            ConsistentIDError: the request is refused; `errors` has those of the server.
        """
        if not self.is_open:
            raise NotServing("the server is being stopped; try again later")
        job = PortraitJob.new(request, photos, owner=owner, idempotency_key=idempotency_key)
        if idempotency_key and (known := self.jobs.find(owner=owner, idempotency_key=idempotency_key)):
            return _same(known, job)
        check_request(request, photos, config=self.config, generator=self.generator)
        for index, (_, content) in enumerate(photos):
            self.files.put(job.id, photo_file(index), content)
        try:
            added = self.jobs.add(job, max_queue=self.config.max_queue)
        except BaseException:
            self.files.delete(job.id)
            raise
        if added.id != job.id:  # the same key arrived twice at once
            self.files.delete(job.id)
            return _same(added, job)
        return job

    def get(self, id_: str, *, owner: str) -> PortraitJob:
        """The owner's job.

        Raises:
            UnknownJob: there is none of that id.
        """
        job = self.jobs.get(id_)
        if job is None or job.owner != owner:
            raise UnknownJob("there is no portrait job of this id; it may have been deleted")
        return job

    def of_owner(self, *, owner: str, limit: int = 100) -> list[PortraitJob]:
        """The owner's jobs, the newest first."""
        return self.jobs.of_owner(owner, limit=limit)

    def progress(self, id_: str, *, owner: str) -> Progress:
        """Where a job stands, with the latest preview.

        Raises:
            UnknownJob: there is none of that id.
        """
        job = self.get(id_, owner=owner)
        preview = self.jobs.preview(id_) if job.state is JobState.RUNNING else None
        return Progress(job, self.jobs.position(job), preview)

    def follow(self, id_: str, *, owner: str) -> Iterator[Progress]:
        """Every change of a job until it ends; the preview only when it is new.

        Raises:
            UnknownJob: there is none of that id, or it was deleted meanwhile.
        """
        before = None
        while True:
            now = self.progress(id_, owner=owner)
            if now != before:
                yield now if before is None else fresh(now, before)
                before = now
            if now.job.state.is_final:
                return
            time.sleep(POLL)

    def cancel(self, id_: str, *, owner: str) -> PortraitJob:
        """Cancel a job; one that has ended stays as it is. Its photos are deleted.

        Raises:
            UnknownJob: there is none of that id.
        """
        job = self.get(id_, owner=owner)
        if self.jobs.cancel(id_):
            self.files.delete(id_)
        return self.get(job.id, owner=owner)

    def delete(self, id_: str, *, owner: str) -> None:
        """Cancel a job and delete everything of it.

        Raises:
            UnknownJob: there is none of that id.
        """
        self.get(id_, owner=owner)
        self._forget([id_])

    def delete_all(self, *, owner: str) -> int:
        """Cancel and delete everything of an owner; how many jobs there were."""
        ids = [job.id for job in self.jobs.of_owner(owner)]
        self._forget(ids)
        return len(ids)

    def on_deletion(self, told: Callable[[Sequence[str]], None]) -> None:
        """Have something told the ids of jobs whenever any are deleted, or were to be and there were none."""
        self._on_deletion.append(told)

    def image(self, id_: str, index: int, *, owner: str) -> bytes:
        """A portrait as PNG, its record inside.

        Raises:
            UnknownJob: there is no such job or image.
            NotFinished: it is not made yet, or never will be.
        """
        job = self._finished(id_, owner=owner)
        content = self.files.get(id_, portrait_file(index))
        if content is None:
            withheld = index in job.withheld
            raise UnknownJob(
                "the model's safety checker withheld this portrait" if withheld else "the job has no such portrait"
            )
        return content

    def records(self, id_: str, *, owner: str) -> list[PortraitSettings]:
        """What makes each portrait again.

        Raises:
            UnknownJob, NotFinished: as in `image`.
        """
        job = self._finished(id_, owner=owner)
        found = (self.files.get(id_, record_file(index)) for index in range(job.images))
        return [PortraitSettings.model_validate_json(text) for text in found if text is not None]

    def sweep(self) -> None:
        """Queue what lost its worker again, and delete what is too old or belongs to no job."""
        requeued, failed = self.jobs.requeue_lost()
        for id_ in failed:
            self.files.delete(id_)
        if requeued or failed:
            logger.warning("%d jobs lost their worker and are queued again, %d failed", requeued, len(failed))
        before = time.time() - self.config.retention_hours * 3600
        if expired := self.jobs.expired(before=before):
            self._forget(expired)
        for id_ in self.files.old(before=time.time() - _ORPHAN_AGE):
            if self.jobs.get(id_) is None:
                self.files.delete(id_)

    def _finished(self, id_: str, *, owner: str) -> PortraitJob:
        job = self.get(id_, owner=owner)
        if job.state is not JobState.SUCCEEDED:
            raise NotFinished(f"the job has no portraits: it is {job.state}")
        return job

    def _forget(self, ids: list[str]) -> None:
        for id_ in ids:
            self.jobs.delete(id_)
            self.files.delete(id_)
        for told in self._on_deletion:
            told(ids)


_ORPHAN_AGE = 600  # seconds; files are written before their job


def photo_file(index: int) -> str:
    """Name of a job's photo."""
    return f"photo_{index}"


def portrait_file(index: int) -> str:
    """Name of a job's portrait."""
    return f"portrait_{index}.png"


def record_file(index: int) -> str:
    """Name of a portrait's record."""
    return f"portrait_{index}.json"


def fresh(now: Progress, before: Progress) -> Progress:
    """Progress without a preview that was shown already."""
    return now if now.preview != before.preview else Progress(now.job, now.position)


def _same(known: PortraitJob, job: PortraitJob) -> PortraitJob:
    if known.fingerprint != job.fingerprint:
        raise KeyReused("the idempotency key belongs to another request; use a new one")
    return known
