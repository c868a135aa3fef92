"""Jobs in one SQLite file, which the processes of one machine may share."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from consistentid.errors import InvalidSettings
from consistentid.web.errors import TooManyRequests
from consistentid.web.jobs import MAX_ATTEMPTS, JobState, PortraitJob

FULL_RETRY = 5  # seconds
LOST = "the server was stopped {} times while this job ran, so it is not tried again"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, state TEXT NOT NULL, created REAL NOT NULL, updated REAL NOT NULL,
    batch_key TEXT NOT NULL, num_images INTEGER NOT NULL, idempotency_key TEXT, document TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0, step INTEGER NOT NULL DEFAULT 0, steps INTEGER NOT NULL DEFAULT 0,
    worker TEXT, lease REAL, preview BLOB,
    UNIQUE (owner, idempotency_key)
);
CREATE INDEX IF NOT EXISTS waiting ON jobs (state, created);
"""
_COLUMNS = "document, state, updated, attempts, step, steps"
_HELD = f"state = '{JobState.RUNNING}' AND worker = ?"
_BACK = f"state = '{JobState.QUEUED}', worker = NULL, lease = NULL, step = 0, steps = 0, preview = NULL"


class SqliteJobStore:
    """A `JobStore` on a file; deleted rows are overwritten with zeros.

    Args:
        path: of the file; its folder is made.

    Raises:
        InvalidSettings: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "secure_delete = ON"):
                self._connection.execute(f"PRAGMA {pragma}")
            self._connection.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise InvalidSettings(f"the jobs cannot be kept in {path} ({error}); choose another store") from None
        self._lock = threading.Lock()

    def add(self, job: PortraitJob, *, max_queue: int) -> PortraitJob:
        """See `JobStore`."""
        with self._transaction() as rows:
            if job.idempotency_key is not None and (known := self._known(rows, job.owner, job.idempotency_key)):
                return known
            waiting = rows.execute(f"SELECT count(*) FROM jobs WHERE state = '{JobState.QUEUED}'").fetchone()[0]
            if waiting >= max_queue:
                raise TooManyRequests(f"{waiting} jobs are waiting already; try again later", retry_after=FULL_RETRY)
            rows.execute(
                "INSERT INTO jobs (id, owner, state, created, updated, batch_key, num_images, idempotency_key, "
                "document) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    job.id, job.owner, job.state, job.created, job.updated, job.request.batch_key,
                    job.request.num_images, job.idempotency_key, job.model_dump_json(),
                ),
            )  # fmt: skip
        return job

    def get(self, id_: str) -> PortraitJob | None:
        """See `JobStore`."""
        found = self._rows(f"SELECT {_COLUMNS} FROM jobs WHERE id = ?", id_)
        return _job(found[0]) if found else None

    def find(self, *, owner: str, idempotency_key: str) -> PortraitJob | None:
        """See `JobStore`."""
        with self._lock:
            return self._known(self._connection, owner, idempotency_key)

    def preview(self, id_: str) -> bytes | None:
        """See `JobStore`."""
        found = self._rows("SELECT preview FROM jobs WHERE id = ?", id_)
        return found[0][0] if found else None

    def position(self, job: PortraitJob) -> int:
        """See `JobStore`."""
        if job.state is not JobState.QUEUED:
            return 0
        query = f"SELECT count(*) FROM jobs WHERE state = '{JobState.QUEUED}' AND created < ?"
        return int(self._rows(query, job.created)[0][0])

    def queued(self) -> int:
        """See `JobStore`."""
        return int(self._rows(f"SELECT count(*) FROM jobs WHERE state = '{JobState.QUEUED}'")[0][0])

    def of_owner(self, owner: str, *, limit: int | None = None) -> list[PortraitJob]:
        """See `JobStore`."""
        query = f"SELECT {_COLUMNS} FROM jobs WHERE owner = ? ORDER BY created DESC LIMIT ?"
        return [_job(row) for row in self._rows(query, owner, -1 if limit is None else limit)]

    def claim(self, worker: str, *, max_images: int, lease: float) -> list[PortraitJob]:
        """See `JobStore`."""
        waiting = f"FROM jobs WHERE state = '{JobState.QUEUED}'"
        if not self._rows(f"SELECT 1 {waiting} LIMIT 1"):  # idle workers do not lock the file
            return []
        with self._transaction() as rows:
            head = rows.execute(f"SELECT batch_key {waiting} ORDER BY created LIMIT 1").fetchone()
            if head is None:
                return []
            alike = rows.execute(
                f"SELECT id, num_images {waiting} AND batch_key = ? ORDER BY created LIMIT ?", (head[0], max_images)
            )
            taken: list[str] = []
            images = 0
            for id_, count in alike:
                if taken and images + count > max_images:
                    break
                taken.append(id_)
                images += count
            now = time.time()
            rows.executemany(
                f"UPDATE jobs SET state = '{JobState.RUNNING}', worker = ?, lease = ?, updated = ?, "
                "attempts = attempts + 1 WHERE id = ?",
                [(worker, now + lease, now, id_) for id_ in taken],
            )
            marks = ", ".join("?" * len(taken))
            query = f"SELECT {_COLUMNS} FROM jobs WHERE id IN ({marks}) ORDER BY created"
            return [_job(row) for row in rows.execute(query, taken)]

    def renew(self, worker: str, *, lease: float) -> None:
        """See `JobStore`."""
        self._change(f"UPDATE jobs SET lease = ? WHERE {_HELD}", time.time() + lease, worker)

    def progress(self, id_: str, worker: str, *, step: int, steps: int, preview: bytes | None) -> bool:
        """See `JobStore`."""
        return self._change(
            f"UPDATE jobs SET step = ?, steps = ?, preview = coalesce(?, preview) WHERE {_HELD} AND id = ?",
            step, steps, preview, worker, id_,
        ) == 1  # fmt: skip

    def finish(self, job: PortraitJob, worker: str) -> bool:
        """See `JobStore`."""
        return self._change(
            "UPDATE jobs SET state = ?, updated = ?, step = ?, steps = ?, document = ?, worker = NULL, lease = NULL, "
            f"preview = NULL WHERE {_HELD} AND id = ?",
            job.state, time.time(), job.step, job.steps, job.model_dump_json(), worker, job.id,
        ) == 1  # fmt: skip

    def release(self, worker: str) -> None:
        """See `JobStore`."""
        self._change(f"UPDATE jobs SET {_BACK}, attempts = attempts - 1 WHERE {_HELD}", worker)

    def cancel(self, id_: str) -> bool:
        """See `JobStore`."""
        return self._change(
            f"UPDATE jobs SET state = '{JobState.CANCELLED}', updated = ?, worker = NULL, lease = NULL, preview = NULL "
            f"WHERE id = ? AND state IN ('{JobState.QUEUED}', '{JobState.RUNNING}')",
            time.time(), id_,
        ) == 1  # fmt: skip

    def requeue_lost(self) -> tuple[int, list[str]]:
        """See `JobStore`."""
        with self._transaction() as rows:
            now = time.time()
            lost = f"state = '{JobState.RUNNING}' AND lease < ?"
            hopeless = rows.execute(
                f"SELECT {_COLUMNS} FROM jobs WHERE {lost} AND attempts >= {MAX_ATTEMPTS}", (now,)
            ).fetchall()
            failed = [_job(row).model_copy(update={"error": LOST.format(MAX_ATTEMPTS)}) for row in hopeless]
            rows.executemany(
                f"UPDATE jobs SET state = '{JobState.FAILED}', updated = ?, document = ?, worker = NULL, lease = NULL, "
                "preview = NULL WHERE id = ?",
                [(now, job.model_dump_json(), job.id) for job in failed],
            )
            requeued = rows.execute(f"UPDATE jobs SET {_BACK} WHERE {lost}", (now,)).rowcount
        return requeued, [job.id for job in failed]

    def delete(self, id_: str) -> None:
        """See `JobStore`."""
        self._change("DELETE FROM jobs WHERE id = ?", id_)
        self._rows("PRAGMA wal_checkpoint(TRUNCATE)")  # the log still has prompt and previews

    def expired(self, *, before: float) -> list[str]:
        """See `JobStore`."""
        active = f"'{JobState.QUEUED}', '{JobState.RUNNING}'"
        return [
            row[0] for row in self._rows(f"SELECT id FROM jobs WHERE updated < ? AND state NOT IN ({active})", before)
        ]

    def close(self) -> None:
        """See `JobStore`."""
        with self._lock:
            self._connection.close()

    def _known(self, rows: sqlite3.Connection, owner: str, key: str) -> PortraitJob | None:
        query = f"SELECT {_COLUMNS} FROM jobs WHERE owner = ? AND idempotency_key = ?"
        found = rows.execute(query, (owner, key)).fetchone()
        return None if found is None else _job(found)

    def _rows(self, query: str, *values: Any) -> list[Any]:
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    def _change(self, query: str, *values: Any) -> int:
        with self._lock:
            return self._connection.execute(query, values).rowcount

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, and nobody else writes meanwhile."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")


def _job(row: Any) -> PortraitJob:
    """The document with what changes more often, which has columns of its own."""
    names = ("state", "updated", "attempts", "step", "steps")
    job = PortraitJob.model_validate_json(row[0])
    return job.model_copy(update=dict(zip(names, (JobState(row[1]), *row[2:]), strict=True)))
