"""Whose a browser session and a file of the page are: who knows another's address still gets nothing."""

import json
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SESSIONS = 100_000  # that are remembered
_MAX_NAME = 64  # characters of a session's name
_MAX_EVENT = 1_000_000  # bytes of a body that is no upload; it is read whole before anything else looks at it
_API = "gradio_api/"
# What the page itself asks for. Gradio has more, some of which give files and sessions under other addresses.
_ROUTES = {
    "app_id", "cancel", "heartbeat", "info", "queue", "reset", "startup-events", "theme.css", "upload",
    "upload_progress",
}  # fmt: skip
_OPEN = "v1/"  # has keys of its own


class Ownership:
    """Owners of sessions and of files.

    Args:
        folder: has a folder for each upload and for each session.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sessions: OrderedDict[str, str] = OrderedDict()
        self._files: dict[str, set[str]] = {}
        self._public: frozenset[str] = frozenset()
        self._lock = threading.Lock()

    def publish(self) -> None:
        """What is in the folder now is the page's own, such as the pictures of presets: everybody may see it."""
        self._public = frozenset(path.name for path in self._folder.iterdir())

    def has_session(self, name: str, *, owner: str) -> bool:
        """Whether a session of the browser is an owner's; one that is new becomes so."""
        with self._lock:
            found = self._sessions.setdefault(name, owner)
            self._sessions.move_to_end(name)
            if len(self._sessions) > _SESSIONS:
                self._sessions.popitem(last=False)
            return found == owner

    def add(self, path: str | Path, *, owner: str) -> None:
        """A file, or the folder that it is in below the page's, is an owner's, too: equal uploads are one file."""
        with self._lock:
            self._files = {name: owners for name, owners in self._files.items() if (self._folder / name).exists()}
            self._files.setdefault(self._name(path), set()).add(owner)

    def may_read(self, path: str | Path, *, owner: str) -> bool:
        """Whether a file is an owner's, or the page's, or elsewhere, where Gradio decides."""
        name = self._name(path)
        with self._lock:
            return not name or name in self._public or owner in self._files.get(name, ())

    def drop(self, path: str | Path, *, owner: str) -> bool:
        """A file is not the owner's any more; whether it was, and nobody else has it."""
        with self._lock:
            owners = self._files.get(self._name(path), set())
            was = owner in owners
            owners.discard(owner)
            return was and not owners and self._name(path) not in self._public

    def _name(self, path: str | Path) -> str:
        """Of the folder directly below the page's; empty for what is elsewhere."""
        resolved = Path(path).resolve()
        parts = resolved.relative_to(self._folder).parts if resolved.is_relative_to(self._folder) else ()
        return parts[0] if parts else ""


class Owned:
    """ASGI middleware: every request of the page must be its owner's.

    Args:
        app: what answers.
        owner: of a request, None for a stranger's.
        ownership: what is whose.
        sign_in: where a stranger's browser is sent; None where nobody signs in.
    """

    def __init__(
        self, app: ASGIApp, *, owner: Callable[[Request], str | None], ownership: Ownership, sign_in: str | None
    ) -> None:
        self.app = app
        self._owner, self._ownership, self._sign_in = owner, ownership, sign_in

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        path = scope.get("path", "").lstrip("/")
        if scope["type"] != "http" or path.startswith(_OPEN) or f"/{path}" == self._sign_in:
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        owner = self._owner(request)
        if owner is None:
            await self._stranger(request)(scope, receive, send)
            return
        if path.startswith(_API):
            path = path.removeprefix(_API)
            is_upload = path.startswith("upload")
            body = b"" if is_upload else await _body(request)
            if body is None:
                await _answer(413, f"the body is larger than {_MAX_EVENT:,} bytes")(scope, receive, send)
                return
            if not self._is_own(request, path, body, owner=owner):
                await _answer(404, "there is nothing of yours here")(scope, receive, send)
                return
            send = self._noting_uploads(send, owner=owner) if is_upload and request.method == "POST" else _unkept(send)
            receive = receive if is_upload else _replayed(body, receive)
        await self.app(scope, receive, send)

    def _stranger(self, request: Request) -> Response:
        if self._sign_in is not None and "text/html" in request.headers.get("accept", ""):
            return RedirectResponse(self._sign_in, 303)
        return _answer(401, "this page is for those who have signed in")

    def _is_own(self, request: Request, path: str, body: bytes, *, owner: str) -> bool:
        if path.startswith("file="):
            file = path.removeprefix("file=")
            return "://" not in file and "\0" not in file and self._ownership.may_read(file, owner=owner)
        route, _, rest = path.partition("/")
        if route not in _ROUTES:
            return False
        names = {request.query_params.get("session_hash"), _session_in(body)}
        if route == "heartbeat":
            names.add(rest.partition("/")[0])
        return all(len(name) <= _MAX_NAME and self._ownership.has_session(name, owner=owner) for name in names if name)

    def _noting_uploads(self, send: Send, *, owner: str) -> Send:
        """Gradio answers with the places of the files."""
        content = bytearray()

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.body":
                content.extend(message.get("body", b""))
                if not message.get("more_body"):
                    for path in _json(bytes(content)) or ():
                        self._ownership.add(str(path), owner=owner)
            await send(message)

        return noting


async def _body(request: Request) -> bytes | None:
    """Of an event; None when it is too large."""
    body = bytearray()
    async for part in request.stream():
        body.extend(part)
        if len(body) > _MAX_EVENT:
            return None
    return bytes(body)


def _unkept(send: Send) -> Send:
    """The browser keeps no copy: whoever uses it next may have another key."""

    async def unkept(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["Cache-Control"] = "no-store"
        await send(message)

    return unkept


def _session_in(body: bytes) -> str | None:
    values = _json(body)
    name = values.get("session_hash") if isinstance(values, dict) else None
    return None if name is None else str(name)


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A body that was read already, then what comes after it."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


def _answer(status: int, sentence: str) -> JSONResponse:
    return JSONResponse({"detail": sentence}, status)
