"""`/v1/health`, `/v1/ready`, `/v1/metrics`: for those who run the server."""

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from consistentid.web.access import Owner
from consistentid.web.errors import NotServing
from consistentid.web.problems import declared
from consistentid.web.service import PortraitService
from consistentid.web.state_schemas import Health, Readiness

router = APIRouter(prefix="/v1", tags=["state"])


@router.get("/health", summary="Does the process answer?")
async def health() -> Health:
    """Needs no key."""
    return Health()


@router.get("/ready", summary="Are jobs accepted and worked on?", responses=declared(503))
def ready(request: Request) -> Readiness:
    """Needs no key."""
    service: PortraitService = request.app.state.service
    if not service.is_ready:
        raise NotServing("the server is being stopped, or a worker has died")
    return Readiness(workers=len(service.workers), queued=service.queue.jobs.queued())


@router.get(
    "/metrics",
    response_class=Response,
    summary="Counters for Prometheus",
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus' text format."},
        **declared(401, 403),
    },
)
def metrics(request: Request, owner: Owner) -> Response:
    """Nothing in it belongs to a person."""
    del owner
    service: PortraitService = request.app.state.service
    return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)
