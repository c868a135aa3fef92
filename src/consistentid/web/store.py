"""Where jobs and their files are kept: two protocols that every store fulfils."""

from collections.abc import Sequence
from typing import Protocol

from consistentid.web.jobs import PortraitJob


class JobStore(Protocol):
    """Jobs, and the queue that they form. Every method is atomic, also between processes."""

    def add(self, job: PortraitJob, *, max_queue: int) -> PortraitJob:
        """Queue a job; when the owner's idempotency key is known already, give back that job instead.

        Raises:
            TooManyRequests: so many jobs are queued.
        """
        ...

    def get(self, id_: str) -> PortraitJob | None:
        """A job, None when there is none."""
        ...

    def find(self, *, owner: str, idempotency_key: str) -> PortraitJob | None:
        """The owner's job with that key, None when there is none."""
        ...

    def preview(self, id_: str) -> bytes | None:
        """The latest preview of a running job."""
        ...

    def position(self, job: PortraitJob) -> int:
        """How many jobs are queued before it."""
        ...

    def queued(self) -> int:
        """How many jobs wait."""
        ...

    def of_owner(self, owner: str, *, limit: int | None = None) -> list[PortraitJob]:
        """The owner's jobs, the newest first."""
        ...

    def claim(self, worker: str, *, max_images: int, lease: float) -> list[PortraitJob]:
        """Take the oldest queued job, and those after it with its batch key, up to so many images.

        Args:
            worker: who takes them.
            max_images: together; the first job is taken whatever it asks for.
            lease: seconds until they are given to others, unless renewed.
        """
        ...

    def renew(self, worker: str, *, lease: float) -> None:
        """Keep what the worker holds for another time."""
        ...

    def progress(self, id_: str, worker: str, *, step: int, steps: int, preview: bytes | None) -> bool:
        """Tell how far a job is; False when the worker does not hold it any more: cancelled, deleted or given away."""
        ...

    def finish(self, job: PortraitJob, worker: str) -> bool:
        """Write a job's end, unless the worker does not hold it any more."""
        ...

    def release(self, worker: str) -> None:
        """Queue again what the worker holds, as if it had never been taken."""
        ...

    def cancel(self, id_: str) -> bool:
        """Cancel a job that is not finished; whether it was."""
        ...

    def requeue_lost(self) -> tuple[int, list[str]]:
        """Queue jobs whose lease ended again; how many, and the ids of those that failed for good."""
        ...

    def delete(self, id_: str) -> None:
        """Forget a job."""
        ...

    def expired(self, *, before: float) -> list[str]:
        """Jobs that ended before a time."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...


class FileStore(Protocol):
    """The files of jobs, by job and name; a file is there whole or not at all."""

    def put(self, job: str, name: str, content: bytes) -> None:
        """Write a file."""
        ...

    def get(self, job: str, name: str) -> bytes | None:
        """A file's content, None when there is none."""
        ...

    def delete(self, job: str, names: Sequence[str] | None = None) -> None:
        """Delete files of a job, by default all."""
        ...

    def old(self, *, before: float) -> list[str]:
        """Jobs whose files are older than a time, in seconds since 1970; what was never written whole is deleted."""
        ...
