"""Every store keeps the same promises; Redis and S3 are real servers, where this machine has them."""

import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from consistentid.errors import InvalidSettings
from consistentid.web.config import ServerConfig
from consistentid.web.errors import TooManyRequests
from consistentid.web.files import FolderFileStore
from consistentid.web.jobs import MAX_ATTEMPTS, PHOTO, JobState, PortraitJob, PortraitRequest
from consistentid.web.queue import JobQueue
from consistentid.web.redis_store import RedisJobStore
from consistentid.web.s3_files import S3FileStore
from consistentid.web.sqlite_store import SqliteJobStore
from consistentid.web.store import FileStore, JobStore

MOTO = os.environ.get("MOTO_SERVER") or shutil.which("moto_server")  # boto3 and ours need different python-dateutil


def job(owner: str = "anna", *, key: str | None = None, **changes: Any) -> PortraitJob:
    request = PortraitRequest(**{"prompt": "a person", **changes})
    return PortraitJob.new(request, [(PHOTO, b"photo")], owner=owner, idempotency_key=key)


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    folder = tmp_path_factory.mktemp("redis")
    path = folder / "socket"
    command = ["redis-server", "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(folder)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while not path.exists():
        time.sleep(0.02)
    yield f"unix://{path}"
    server.terminate()
    server.wait()


@pytest.fixture(params=["sqlite", "redis"])
def jobs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[JobStore]:
    if request.param == "sqlite":
        store: JobStore = SqliteJobStore(tmp_path / "jobs.sqlite")
    else:
        store = RedisJobStore(request.getfixturevalue("redis_url"))
        store._redis.flushall()  # type: ignore[attr-defined]
    yield store
    store.close()


def test_jobs_are_claimed_in_order_with_those_that_fit(jobs: JobStore) -> None:
    alike = [jobs.add(job(num_images=3), max_queue=9) for _ in range(3)]
    other = jobs.add(job(steps=7), max_queue=9)
    assert (jobs.queued(), jobs.position(alike[2]), jobs.position(other)) == (4, 2, 3)
    first = jobs.claim("a", max_images=6, lease=30)
    assert [one.id for one in first] == [one.id for one in alike[:2]]
    assert {(one.state, one.attempts) for one in first} == {(JobState.RUNNING, 1)}
    assert [one.id for one in jobs.claim("b", max_images=2, lease=30)] == [alike[2].id]  # too many, but first
    assert [one.id for one in jobs.claim("b", max_images=2, lease=30)] == [other.id]
    assert jobs.claim("c", max_images=8, lease=30) == []


def test_only_the_holder_reports_and_ends(jobs: JobStore) -> None:
    one = jobs.add(job(), max_queue=9)
    [held] = jobs.claim("a", max_images=8, lease=30)
    assert not jobs.progress(one.id, "b", step=1, steps=2, preview=b"x")
    assert jobs.progress(one.id, "a", step=1, steps=2, preview=b"x")
    assert jobs.progress(one.id, "a", step=2, steps=2, preview=None)
    assert (jobs.preview(one.id), (jobs.get(one.id) or one).step) == (b"x", 2)
    done = held.model_copy(update={"state": JobState.SUCCEEDED, "images": 1, "step": 2, "steps": 2})
    assert not jobs.finish(done, "b")
    assert jobs.finish(done, "a")
    assert not jobs.finish(done, "a")
    assert not jobs.cancel(one.id)
    found = jobs.get(one.id)
    assert found is not None
    assert (found.state, found.images, jobs.preview(one.id)) == (JobState.SUCCEEDED, 1, None)
    assert jobs.expired(before=time.time() + 1) == [one.id]
    assert jobs.expired(before=found.created - 1) == []


def test_lost_jobs_are_queued_again_and_given_up_in_the_end(jobs: JobStore) -> None:
    one = jobs.add(job(), max_queue=9)
    for _ in range(MAX_ATTEMPTS - 1):
        jobs.claim("a", max_images=8, lease=-1)
        assert jobs.requeue_lost() == (1, [])
    jobs.claim("a", max_images=8, lease=-1)
    jobs.renew("a", lease=30)
    assert jobs.requeue_lost() == (0, [])
    jobs.release("a")
    assert (jobs.get(one.id) or one).attempts == MAX_ATTEMPTS - 1
    jobs.claim("a", max_images=8, lease=-1)
    assert jobs.requeue_lost() == (0, [one.id])
    failed = jobs.get(one.id)
    assert failed is not None
    assert failed.state is JobState.FAILED
    assert "stopped 3 times" in (failed.error or "")


def test_cancel_delete_and_owners(jobs: JobStore) -> None:
    mine, running, yours = (jobs.add(job(owner), max_queue=9) for owner in ("anna", "anna", "bert"))
    assert jobs.cancel(mine.id)
    jobs.claim("a", max_images=1, lease=30)
    assert jobs.cancel(running.id)
    assert not jobs.progress(running.id, "a", step=1, steps=2, preview=None)
    assert [one.id for one in jobs.of_owner("anna")] == [running.id, mine.id]
    assert [one.id for one in jobs.of_owner("anna", limit=1)] == [running.id]
    for one in (mine, running, yours):
        jobs.delete(one.id)
    assert jobs.get(mine.id) is None
    assert (jobs.queued(), jobs.of_owner("anna"), jobs.of_owner("bert")) == (0, [], [])


def test_a_rush_with_one_key_makes_one_job_and_the_queue_is_bounded(jobs: JobStore) -> None:
    added: list[str] = []

    def add(key: str | None) -> None:
        try:
            added.append(jobs.add(job(key=key), max_queue=4).id)
        except TooManyRequests:
            added.append("full")

    for keys in (["same"] * 6, [None] * 6):
        threads = [threading.Thread(target=add, args=(key,)) for key in keys]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(set(added[:6])) == 1
    assert added[6:].count("full") == 3
    assert (jobs.find(owner="anna", idempotency_key="same") or job()).id == added[0]
    assert jobs.find(owner="bert", idempotency_key="same") is None


@pytest.fixture(params=["folder", "s3"])
def files(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileStore]:
    if request.param == "folder":
        yield FolderFileStore(tmp_path)
        return
    if MOTO is None:
        pytest.skip("no moto_server; name one in MOTO_SERVER")
    for name, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = subprocess.Popen([MOTO, "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    endpoint = f"http://127.0.0.1:{port}"
    for _ in range(300):
        try:
            urllib.request.urlopen(urllib.request.Request(f"{endpoint}/bucket", method="PUT"))
            break
        except OSError:
            time.sleep(0.1)
    yield S3FileStore("bucket/serve", endpoint=endpoint)
    server.terminate()
    server.wait()


@pytest.mark.enable_socket
def test_files_come_back_and_go(files: FileStore) -> None:
    for one in ("a" * 32, "b" * 32):
        files.put(one, "photo_0", one.encode())
        files.put(one, "portrait_0.png", bytes(100_000))
    assert files.get("a" * 32, "photo_0") == b"a" * 32
    files.put("a" * 32, "photo_0", b"new")
    assert files.get("a" * 32, "photo_0") == b"new"
    assert files.get("a" * 32, "photo_1") is None
    files.delete("a" * 32, ["photo_0", "photo_1"])
    assert files.get("a" * 32, "photo_0") is None
    assert files.get("a" * 32, "portrait_0.png") == bytes(100_000)
    assert files.old(before=time.time() + 100) == ["a" * 32, "b" * 32]
    assert files.old(before=time.time() - 100) == []
    files.delete("b" * 32)
    files.delete("c" * 32)
    assert files.old(before=time.time() + 100) == ["a" * 32]


def test_unfinished_files_are_swept(tmp_path: Path) -> None:
    store = FolderFileStore(tmp_path)
    store.put("a" * 32, "photo_0", b"x")
    part = tmp_path / ("a" * 32) / ".half.part"
    part.write_bytes(b"ha")
    store.old(before=time.time() - 100)
    assert part.exists()
    store.old(before=time.time() + 100)
    assert not part.exists()


@pytest.mark.enable_socket
def test_a_store_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="Redis does not answer"):
        JobQueue.open(ServerConfig(redis_url="redis://127.0.0.1:9/0"))
    with pytest.raises(InvalidSettings, match="the bucket nowhere cannot be used"):
        S3FileStore("nowhere", endpoint="http://127.0.0.1:9")
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidSettings, match="choose another store"):
        JobQueue.open(ServerConfig(store=tmp_path / "file"))
