"""The queue without HTTP, as the web app uses it, and what survives a killed server."""

import threading
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from consistentid.errors import PromptRefused
from consistentid.generation.generator import PortraitGenerator
from consistentid.web.config import ServerConfig
from consistentid.web.errors import NotServing, TooManyRequests, UnknownJob
from consistentid.web.jobs import MAX_ATTEMPTS, PHOTO, JobState, PortraitJob, PortraitRequest
from consistentid.web.queue import JobQueue
from consistentid.web.service import PortraitService

OWNER = "app"


@pytest.fixture
def service(config: ServerConfig, generator: PortraitGenerator) -> Iterator[PortraitService]:
    running = PortraitService(config, [generator])
    yield running
    running.close()


@pytest.fixture
def submit(service: PortraitService, photo: bytes, quick: dict[str, Any]) -> Callable[..., PortraitJob]:
    def send(**changes: Any) -> PortraitJob:
        return service.queue.submit(PortraitRequest(**{**quick, **changes}), [(PHOTO, photo)], owner=OWNER)

    return send


def state(service: PortraitService, job: PortraitJob) -> JobState:
    return service.queue.get(job.id, owner=OWNER).state


def test_submit_follow_and_fetch(service: PortraitService, submit: Callable[..., PortraitJob]) -> None:
    service.start()
    job = submit(num_images=2, steps=3)
    seen = list(service.queue.follow(job.id, owner=OWNER))
    assert seen[-1].job.state is JobState.SUCCEEDED
    assert any(one.preview for one in seen)
    assert [one.job.step for one in seen] == sorted(one.job.step for one in seen)
    picture = Image.open(BytesIO(service.queue.image(job.id, 1, owner=OWNER)))
    assert picture.size == (128, 128)
    assert [record.index for record in service.queue.records(job.id, owner=OWNER)] == [0, 1]
    with pytest.raises(UnknownJob):
        service.queue.get(job.id, owner="somebody else")


def test_waiting_jobs_that_fit_share_a_run(service: PortraitService, submit: Callable[..., PortraitJob]) -> None:
    jobs = [submit(seed=seed) for seed in range(3)]
    other = submit(steps=3)
    assert service.queue.jobs.position(service.queue.get(other.id, owner=OWNER)) == 3
    service.start()
    for job in (*jobs, other):
        assert list(service.queue.follow(job.id, owner=OWNER))[-1].job.state is JobState.SUCCEEDED
    records = [service.queue.records(job.id, owner=OWNER)[0] for job in (*jobs, other)]
    assert [(record.batch_size, record.batch_position) for record in records] == [(3, 0), (3, 1), (3, 2), (1, 0)]


def test_one_of_a_run_is_cancelled_and_the_others_go_on(
    service: PortraitService, submit: Callable[..., PortraitJob]
) -> None:
    first, second = submit(steps=10), submit(steps=10, seed=1)
    service.start()
    for progress in service.queue.follow(first.id, owner=OWNER):
        if progress.job.step:
            assert service.queue.cancel(first.id, owner=OWNER).state is JobState.CANCELLED
            break
    assert list(service.queue.follow(second.id, owner=OWNER))[-1].job.state is JobState.SUCCEEDED
    assert state(service, first) is JobState.CANCELLED
    assert service.queue.files.get(first.id, "photo_0") is None


def test_what_a_killed_server_held_is_queued_again_then_given_up(
    service: PortraitService, submit: Callable[..., PortraitJob]
) -> None:
    job, jobs = submit(), service.queue.jobs
    for attempt in range(MAX_ATTEMPTS):
        assert [one.id for one in jobs.claim("killed", max_images=8, lease=-1)] == [job.id]
        assert jobs.claim("other", max_images=8, lease=30) == []
        service.queue.sweep()
        last = attempt == MAX_ATTEMPTS - 1
        assert state(service, job) is (JobState.FAILED if last else JobState.QUEUED)
    assert "stopped 3 times" in (service.queue.get(job.id, owner=OWNER).error or "")
    assert service.queue.files.get(job.id, "photo_0") is None


def test_a_worker_that_lost_its_job_writes_nothing(
    service: PortraitService, submit: Callable[..., PortraitJob]
) -> None:
    job, jobs = submit(), service.queue.jobs
    [held] = jobs.claim("slow", max_images=8, lease=-1)
    jobs.requeue_lost()
    jobs.claim("quick", max_images=8, lease=30)
    assert not jobs.finish(held.model_copy(update={"state": JobState.SUCCEEDED}), "slow")
    assert not jobs.progress(job.id, "slow", step=1, steps=2, preview=None)
    assert jobs.progress(job.id, "quick", step=1, steps=2, preview=None)


def test_draining_finishes_what_runs_and_keeps_the_rest(
    config: ServerConfig, generator: PortraitGenerator, photo: bytes, quick: dict[str, Any]
) -> None:
    service = PortraitService(config.model_copy(update={"batch_size": 1}), [generator])
    request = PortraitRequest(**{**quick, "steps": 5})
    first, second = (service.queue.submit(request, [(PHOTO, photo)], owner=OWNER) for _ in range(2))
    service.start()
    next(one for one in service.queue.follow(first.id, owner=OWNER) if one.job.step)
    service.drain()
    with pytest.raises(NotServing):
        service.queue.submit(request, [(PHOTO, photo)], owner=OWNER)
    service.close()
    again = JobQueue.open(config)
    assert again.get(first.id, owner=OWNER).state is JobState.SUCCEEDED
    left = again.get(second.id, owner=OWNER)
    assert (left.state, left.attempts) == (JobState.QUEUED, 0)
    again.jobs.close()


def test_retention_deletes_what_is_old(service: PortraitService, submit: Callable[..., PortraitJob]) -> None:
    job = submit()
    service.queue.cancel(job.id, owner=OWNER)
    service.queue.files.put("f" * 32, "photo_0", b"of a submission that was never queued")
    service.queue.sweep()
    assert state(service, job) is JobState.CANCELLED
    object.__setattr__(service.queue, "config", service.config.model_copy(update={"retention_hours": 1e-9}))
    time.sleep(0.01)
    service.queue.sweep()
    with pytest.raises(UnknownJob):
        state(service, job)


def test_the_queue_is_bounded_under_a_rush(service: PortraitService, photo: bytes, quick: dict[str, Any]) -> None:
    service.queue.config = service.config.model_copy(update={"max_queue": 5})
    results: list[str] = []

    def rush(number: int) -> None:
        try:
            request = PortraitRequest(**{**quick, "seed": number})
            results.append(service.queue.submit(request, [(PHOTO, photo)], owner=OWNER).id)
        except TooManyRequests as error:
            results.append(f"later: {error.retry_after}")

    threads = [threading.Thread(target=rush, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(result.startswith("later") for result in results) == 7
    assert service.queue.jobs.queued() == 5
    assert service.queue.delete_all(owner=OWNER) == 5
    assert list((service.config.store / "files").iterdir()) == []


def test_the_policy_is_asked_before_anything_is_kept(
    service: PortraitService, submit: Callable[..., PortraitJob]
) -> None:
    with pytest.raises(PromptRefused):
        submit(caption="a naked person")
    assert list((service.config.store / "files").iterdir()) == []
