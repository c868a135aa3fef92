"""The FastAPI app: routes around a service."""

import importlib.metadata
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from consistentid.web import problems
from consistentid.web.access import Access
from consistentid.web.analysis_schemas import AnalysisSubmission
from consistentid.web.body_limit import BodyLimit
from consistentid.web.config import ServerConfig
from consistentid.web.jobs import PortraitRequest
from consistentid.web.observe import Observe
from consistentid.web.problems import Problem
from consistentid.web.routes import analyses, models, portraits, state
from consistentid.web.schemas import PortraitSubmission
from consistentid.web.service import PortraitService

DESCRIPTION = """Portraits of the person in a photo, that follow a prompt.

`POST /v1/portraits` queues a job; follow it at `/v1/portraits/{id}/events`, fetch its portraits, delete it. Photos are
deleted as soon as a job ends, the rest when its time is over or you say so. Every error is a problem of RFC 9457.
"""


def create_app(config: ServerConfig, service: PortraitService | None = None) -> FastAPI:
    """The app of a configuration; service and workers start and stop with it.

    Args:
        config: what is served.
        service: by default the one that the configuration describes; its models are loaded now.

    Raises:
        WeightsNotFound: a model cannot be loaded.
        InvalidSettings: the store or the keys cannot be used.
    """
    access = Access(config.keys(), rate=config.rate, counters=config.counters)
    running = service or PortraitService.open(config)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        running.start()
        yield
        await run_in_threadpool(running.close)

    app = FastAPI(
        title="ConsistentID",
        description=DESCRIPTION,
        version=importlib.metadata.version("consistentid"),
        lifespan=lifespan,
        openapi_url="/v1/openapi.json",
        docs_url=None,  # they load scripts from elsewhere
        redoc_url=None,
    )
    app.state.config, app.state.service, app.state.access = config, running, access
    for routes in (portraits, analyses, models, state):
        app.include_router(routes.router)
    problems.install(app)
    app.add_middleware(BodyLimit, most=config.max_body)
    app.add_middleware(Observe, metrics=running.metrics)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The description, with the schemas of bodies that routes read themselves, and of problems."""
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        known = [(model, "validation") for model in (Problem, PortraitSubmission, AnalysisSubmission, PortraitRequest)]
        _, definitions = models_json_schema(known, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
        schemas = schema["components"]["schemas"]
        for name, definition in definitions["$defs"].items():
            schemas.setdefault(name, definition)
        for unused in ("HTTPValidationError", "ValidationError"):  # problems instead
            schemas.pop(unused, None)
        app.openapi_schema = schema
    return app.openapi_schema
