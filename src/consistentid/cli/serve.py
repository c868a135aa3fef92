"""`consistentid serve`."""

import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts import Parameter

from consistentid.errors import InvalidSettings

if TYPE_CHECKING:
    from fastapi import FastAPI

    from consistentid.web.config import ServerConfig
    from consistentid.web.service import PortraitService


@Parameter(name="*")
@dataclass(frozen=True)
class Serving:
    """What a server runs and where it listens, instead of what its configuration says.

    Attributes:
        host: where to listen; beyond 127.0.0.1, API keys are needed.
        port: likewise.
        model: embedded, sd15, sdxl, a folder, a single .safetensors file, or a hub id.
        adapter: folder of an identity adapter, a released file, or the hub id of one.
        device: one worker on each; give several for several.
        store: folder of jobs, photos and portraits.
        api_keys_file: one key a line.
    """

    host: str | None = None
    port: int | None = None
    model: str | None = None
    adapter: str | None = None
    device: tuple[str, ...] = ()
    store: Path | None = None
    api_keys_file: Path | None = None


def serve(config: Path | None = None, /, *, serving: Serving | None = None) -> int:
    """Serve the HTTP API until SIGTERM or Ctrl-C; what runs then is finished first.

    Args:
        config: YAML file, for example configs/server.yaml; any of its names may be an environment variable in capitals
            behind CONSISTENTID_SERVE_.
        serving: instead of what the configuration says.
    """
    service = started_service(config, serving or Serving())
    from consistentid.web.app import create_app

    listen(create_app(service.config, service), service, page="/v1/openapi.json")
    return 0


def started_service(config: Path | None, serving: Serving) -> "PortraitService":
    """The service that a file, the environment and options describe; what is missing is said before models are loaded.

    Raises:
        InvalidSettings: a library is missing, or a value is wrong.
        WeightsNotFound: a model cannot be loaded.
    """
    require("fastapi", "limits", "pydantic_settings", "uvicorn", "yaml")
    from consistentid.web.config import ServerConfig
    from consistentid.web.service import PortraitService

    given = dict(vars(serving))
    options = {"devices": given.pop("device") or None, **given}
    settings = ServerConfig.load(config, **{name: value for name, value in options.items() if value is not None})
    settings.keys()
    return PortraitService.open(settings)


def require(*modules: str) -> None:
    """See that libraries are here.

    Raises:
        InvalidSettings: one is not.
    """
    from importlib.util import find_spec

    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise InvalidSettings(f"serving needs {missing[0]}, which is not installed: pip install 'consistentid[web]'")


def listen(app: "FastAPI", service: "PortraitService", *, page: str) -> None:
    """Run uvicorn; the queue is closed as soon as a signal comes, so that followers are told.

    Args:
        app: of the service.
        service: started and stopped with it.
        page: path that the printed address has.
    """
    import uvicorn

    config = service.config

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: Any) -> None:
            service.drain()
            super().handle_exit(sig, frame)

    # Addresses and paths are personal, so there is no access log; /v1/metrics has the numbers.
    options = uvicorn.Config(
        app,
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=max(1, int(config.drain)),
        limit_concurrency=1024,
        h11_max_incomplete_event_size=65536,
    )
    listener = _bound(config)
    print(f"http://{config.host}:{listener.getsockname()[1]}{page}", flush=True)
    sys.setswitchinterval(0.001)  # s; while a worker computes, requests get their turn sooner
    signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn raises it again after its shutdown; the end is no failure
    Server(options).run(sockets=[listener])


def _bound(config: "ServerConfig") -> socket.socket:
    """A socket at the address of a configuration.

    Raises:
        InvalidSettings: somebody else has it, or there is no such address.
    """
    try:
        family = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((config.host, config.port), family=family, backlog=2048)
    except OSError as error:
        raise InvalidSettings(
            f"cannot listen at {config.host}:{config.port} ({error.strerror or error}); choose another --port or --host"
        ) from None
