"""No request may send more bytes than the server accepts, whatever its header says."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from consistentid.web.errors import BodyTooLarge


class BodyLimit:
    """ASGI middleware; the route that reads a body is told when it is too large, so that the answer is a problem.

    Args:
        app: what is protected.
        most: bytes.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app = app
        self.most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        said = dict(scope["headers"]).get(b"content-length", b"0")
        told = int(said) if said.isdigit() else 0
        got = 0

        async def counted() -> Message:
            nonlocal got
            message = await receive()
            got += len(message.get("body", b""))
            if max(got, told) > self.most:
                raise BodyTooLarge(f"the body is larger than {self.most:,} bytes; send smaller photos")
            return message

        await self.app(scope, counted, send)
