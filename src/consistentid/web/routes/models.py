"""`/v1/models`: what is served."""

from fastapi import APIRouter, Request

from consistentid.faces.regions import REGION_NAMES
from consistentid.generation.presets import PRESETS
from consistentid.web.access import Owner
from consistentid.web.problems import declared
from consistentid.web.service import PortraitService
from consistentid.web.state_schemas import Model, Models

router = APIRouter(prefix="/v1", tags=["models"])


@router.get("/models", summary="See what is served", responses=declared(401, 403))
def models(request: Request, owner: Owner) -> Models:
    """Models with their usual settings and the limits of this server."""
    del owner
    service: PortraitService = request.app.state.service
    config, generator = service.config, service.generator
    preset = PRESETS[generator.adapter.config.base]
    name = config.model if "/" not in config.model else config.model.rstrip("/").rpartition("/")[2]
    model = Model(
        name=name,
        base=generator.adapter.config.base,
        size=preset.size,
        steps=preset.steps,
        guidance=preset.guidance,
        scheduler=preset.scheduler or type(generator.pipeline.scheduler).__name__,
        regions=REGION_NAMES,
        max_images=config.max_images,
        max_steps=config.max_steps,
        max_side=config.max_side,
        weights_sha256=generator.weights_sha256,
    )
    return Models(models=(model,))
