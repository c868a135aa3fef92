"""The same app as a Ray Serve deployment: replicas on many machines, as many as the load needs."""

from pathlib import Path
from typing import Any

from fastapi import FastAPI
from ray import serve

from consistentid.web.app import create_app
from consistentid.web.config import ServerConfig
from consistentid.web.service import PortraitService


@serve.deployment(name="portraits")
@serve.ingress()
class PortraitDeployment:
    """One replica: the API, and a worker on each of its devices. Replicas share the queue and the files.

    Args:
        values: of `ServerConfig`.
    """

    def __init__(self, values: dict[str, Any]) -> None:
        self.config = ServerConfig.load(**values)
        self.service = PortraitService.open(self.config)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The app of this replica."""
        return create_app(self.config, self.service)

    def check_health(self) -> None:
        """Ray replaces a replica that fails this.

        Raises:
            RuntimeError: a worker has died.
        """
        if not self.service.is_ready:
            raise RuntimeError("the service is not ready")


def application(values: dict[str, Any]) -> serve.Application:
    """What `serve deploy configs/serve.yaml` starts.

    Args:
        values: of `ServerConfig`, from `args` of the file; a relative store is one of the folder where it is started.
    """
    config = ServerConfig.load(**values)
    config.keys()
    deployment: Any = PortraitDeployment  # the decorators are typed as if it were the class still
    return deployment.bind({**values, "store": str(Path(config.store).resolve())})
