"""Around every request: its time, and headers that keep personal data out of caches."""

import time
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from consistentid.web.metrics import Metrics


class Observe:
    """ASGI middleware.

    Args:
        app: what is observed.
        metrics: get route and status; never a path, which has the id of a job in it.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = time.perf_counter()

        async def observed(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._began(scope, message, seconds=time.perf_counter() - begun)
            await send(message)

        await self.app(scope, receive, observed)

    def _began(self, scope: MutableMapping[str, Any], message: Message, *, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")
        method = scope["method"] if route != "other" else "other"
        self.metrics.request(method, route, status=message["status"], seconds=seconds)
        if scope["path"].startswith("/v1/"):
            headers = MutableHeaders(scope=message)
            headers.setdefault("Cache-Control", "no-store")
            headers["X-Content-Type-Options"] = "nosniff"
