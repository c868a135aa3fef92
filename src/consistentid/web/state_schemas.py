"""What the routes say that are about the server."""

from pydantic import ConfigDict

from consistentid.web.schemas import Strict


class Model(Strict):
    """A model that is served.

    Attributes:
        name: embedded, a folder's name or a hub id.
        base: family: embedded, sd15 or sdxl.
        size: width, height of a portrait when none is asked for.
        steps, guidance, scheduler: likewise.
        regions: that can take part.
        max_images, max_steps, max_side: limits of a request.
        weights_sha256: of every parameter that takes part.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    name: str
    base: str
    size: tuple[int, int] | None
    steps: int
    guidance: float
    scheduler: str
    regions: tuple[str, ...]
    max_images: int
    max_steps: int
    max_side: int
    weights_sha256: str


class Models(Strict):
    """Every model that is served."""

    models: tuple[Model, ...]


class Health(Strict):
    """The process answers."""

    status: str = "ok"


class Readiness(Strict):
    """Jobs are accepted and worked on.

    Attributes:
        status: ready.
        workers: that are alive.
        queued: jobs that wait.
    """

    status: str = "ready"
    workers: int
    queued: int
