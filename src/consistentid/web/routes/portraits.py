"""`/v1/portraits`: submit, follow, fetch, cancel, delete."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.sse import EventSourceResponse, ServerSentEvent

from consistentid.generation.settings import PortraitSettings
from consistentid.web.access import CountedOwner, Owner
from consistentid.web.bodies import PORTRAIT_BODY, portrait_body
from consistentid.web.errors import UnknownJob
from consistentid.web.jobs import PortraitJob
from consistentid.web.problems import declared
from consistentid.web.queue import POLL, JobQueue, fresh
from consistentid.web.schemas import JOB_ID, Deleted, PortraitEvent, PortraitStatus
from consistentid.web.service import PortraitService

router = APIRouter(prefix="/v1", tags=["portraits"])

JobId = Annotated[str, Path(pattern=JOB_ID, description="As `POST /v1/portraits` gave it.")]


def queue_of(request: Request) -> JobQueue:
    """The queue of the app."""
    service: PortraitService = request.app.state.service
    return service.queue


Queue = Annotated[JobQueue, Depends(queue_of)]


def own_job(id: JobId, owner: Owner, queue: Queue) -> PortraitJob:  # noqa: A002  the name in the path
    """The caller's job."""
    return queue.get(id, owner=owner)


OwnJob = Annotated[PortraitJob, Depends(own_job)]


def _status(request: Request, queue: JobQueue, job: PortraitJob) -> PortraitStatus:
    return PortraitStatus.of(job, url=_path(request, job), position=queue.jobs.position(job))


def _path(request: Request, job: PortraitJob) -> str:
    return str(request.url_for("portrait", id=job.id).path)


@router.post(
    "/portraits",
    status_code=202,
    summary="Queue a portrait job",
    openapi_extra=PORTRAIT_BODY,
    response_model=PortraitStatus,
    responses={
        202: {"headers": {"Location": {"description": "URL of the job.", "schema": {"type": "string"}}}},
        **declared(400, 401, 403, 413, 415, 422, 429, 503),
    },
)
async def submit(
    request: Request,
    response: Response,
    owner: CountedOwner,
    queue: Queue,
    idempotency_key: Annotated[
        str | None,
        Header(min_length=1, max_length=200, description="The same key with the same request gives the same job."),
    ] = None,
) -> PortraitStatus:
    """Send a photo of one person and a prompt, as JSON with the photo in base64 or as a form with a file `photo` and
    the rest as JSON in the field `request`. With 429 and 503, `Retry-After` says when to try again.
    """
    asked, photos = await portrait_body(request)
    job = await run_in_threadpool(queue.submit, asked, photos, owner=owner, idempotency_key=idempotency_key)
    response.headers["Location"] = _path(request, job)
    return await run_in_threadpool(_status, request, queue, job)


@router.get("/portraits", summary="List your jobs, the newest first", responses=declared(401, 403, 422))
def portraits(
    request: Request, owner: Owner, queue: Queue, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> list[PortraitStatus]:
    """Jobs are listed until they are deleted."""
    return [_status(request, queue, job) for job in queue.of_owner(owner=owner, limit=limit)]


@router.delete("/portraits", summary="Delete everything of yours", responses=declared(401, 403))
def delete_all(owner: Owner, queue: Queue) -> Deleted:
    """Cancels what is queued or runs, and deletes every photo, portrait and record of the caller's key."""
    return Deleted(deleted=queue.delete_all(owner=owner))


@router.get("/portraits/{id}", summary="See where a job stands", responses=declared(401, 403, 404, 422))
def portrait(request: Request, job: OwnJob, queue: Queue) -> PortraitStatus:
    """State, progress, and links to the portraits when there are any."""
    return _status(request, queue, job)


@router.delete(
    "/portraits/{id}", status_code=204, summary="Cancel or delete a job", responses=declared(401, 403, 404, 422)
)
def delete(job: OwnJob, owner: Owner, queue: Queue) -> None:
    """A job that is queued or runs is cancelled. Photo, portraits and record are deleted in any case."""
    queue.delete(job.id, owner=owner)


@router.get(
    "/portraits/{id}/events",
    response_class=EventSourceResponse,
    summary="Follow a job",
    responses=declared(401, 403, 404, 422),
)
async def events(request: Request, job: OwnJob, owner: Owner, queue: Queue) -> AsyncIterator[ServerSentEvent]:
    """Server-sent events until the job ends: `progress`, each with a `PortraitEvent` as data, the last one with the
    final state. When the job is deleted, or the server is stopped, the stream ends without one.
    """
    before = None
    while not await request.is_disconnected():
        try:
            now = await run_in_threadpool(queue.progress, job.id, owner=owner)
        except UnknownJob:
            return
        if now != before:
            told = now if before is None else fresh(now, before)
            yield ServerSentEvent(event="progress", data=PortraitEvent.of(told).model_dump(mode="json"))
            before = now
        if now.job.state.is_final or not (queue.is_open or now.job.step):
            return
        await asyncio.sleep(POLL)


@router.get(
    "/portraits/{id}/images/{index}",
    response_class=Response,
    summary="Fetch a portrait",
    responses={
        200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}, "description": "A PNG."},
        **declared(401, 403, 404, 409, 422),
    },
)
def image(job: OwnJob, index: Annotated[int, Path(ge=0, le=1024)], owner: Owner, queue: Queue) -> Response:
    """A PNG; the record that makes it again is inside."""
    return Response(queue.image(job.id, index, owner=owner), media_type="image/png")


@router.get(
    "/portraits/{id}/record",
    summary="Fetch what makes the portraits again",
    responses=declared(401, 403, 404, 409, 422),
)
def record(job: OwnJob, owner: Owner, queue: Queue) -> list[PortraitSettings]:
    """One record for each portrait."""
    return queue.records(job.id, owner=owner)
