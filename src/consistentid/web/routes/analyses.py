"""`/v1/analyses`: what is found in a photo."""

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool

from consistentid.web.access import CountedOwner
from consistentid.web.analysis_schemas import Analysis
from consistentid.web.bodies import ANALYSIS_BODY, analysis_body
from consistentid.web.problems import declared
from consistentid.web.service import PortraitService

router = APIRouter(prefix="/v1", tags=["analyses"])


@router.post(
    "/analyses",
    summary="Find faces, regions and a caption in a photo",
    openapi_extra=ANALYSIS_BODY,
    response_model=Analysis,
    responses=declared(400, 401, 403, 413, 415, 422, 429, 503),
)
async def analyse(request: Request, owner: CountedOwner) -> Analysis:
    """Nothing of the photo is stored. `faces` has every face; `face` chooses the one whose regions are described."""
    del owner
    service: PortraitService = request.app.state.service
    photo, face = await analysis_body(request)

    def analysed() -> Analysis:
        found = service.analyse(photo, face=face)
        return Analysis.of(found, faces=service.faces(found))

    return await run_in_threadpool(analysed)
