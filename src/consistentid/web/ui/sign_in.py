"""Signing in to the page with an API key; the browser then holds a random token, never the key."""

import secrets
import time
from html import escape

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from consistentid.errors import ConsistentIDError
from consistentid.web.access import Access

PATH = "/sign-in"
_COOKIE = "consistentid"
_HOURS = 12
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>ConsistentID: sign in</title>
<style>
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 22rem; margin: 15vh auto; padding: 0 16px; color: #1f2937; }}
label, input, button {{ display: block; width: 100%; box-sizing: border-box; font: inherit; }}
input, button {{ padding: 10px; margin: 6px 0 12px; border-radius: 8px; border: 1px solid #6b7280; }}
button {{ background: #1d4ed8; color: white; border: 0; }}
[role=alert] {{ border-left: 4px solid #b91c1c; padding: 8px 12px; background: #f3f4f6; }}
</style></head>
<body><main><h1>ConsistentID</h1>{notice}
<form method="post" action=".{path}"><label for="key">API key of this server</label>
<input id="key" name="key" type="password" autocomplete="current-password" required autofocus>
<button>Sign in</button></form></main></body></html>"""


class SignIn:
    """Who has signed in, and the page for those who have not.

    Args:
        access: knows the keys, and counts the tries.
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        self._owners: dict[str, tuple[str, float]] = {}  # by token: owner, and when it ends
        self.router = APIRouter(include_in_schema=False)
        self.router.add_api_route(PATH, self._form, methods=["GET"])
        self.router.add_api_route(PATH, self._signed_in, methods=["POST"], response_model=None)

    def owner(self, request: Request) -> str | None:
        """Of a request: a name made of the key that its browser signed in with."""
        owner, end = self._owners.get(request.cookies.get(_COOKIE, ""), (None, 0.0))
        return owner if time.monotonic() < end else None

    async def _form(self) -> HTMLResponse:
        return _page("")

    async def _signed_in(self, request: Request) -> Response:
        if request.headers.get("Sec-Fetch-Site") in {"cross-site", "same-site"}:  # with a key of its own
            return _page("Open this page itself to sign in.", status=403)
        try:
            self._access.count(f"sign-in-{request.client.host if request.client else ''}")
            async with request.form(max_files=0, max_fields=1) as form:
                owner = self._access.of_key(str(form.get("key", "")).strip())
        except ConsistentIDError as error:
            status = getattr(error, "status", 401)
            return _page("This key is not known here." if status == 401 else f"{error}.", status=status)
        now = time.monotonic()
        self._owners = {token: known for token, known in self._owners.items() if now < known[1]}
        token = secrets.token_urlsafe(32)
        self._owners[token] = (owner, now + _HOURS * 3600)
        answer = RedirectResponse("./", 303)
        answer.set_cookie(_COOKIE, token, httponly=True, samesite="lax", secure=request.url.scheme == "https")
        return answer


def _page(sentence: str, *, status: int = 200) -> HTMLResponse:
    notice = f'<p role="alert">{escape(sentence)}</p>' if sentence else ""
    return HTMLResponse(_PAGE.format(notice=notice, path=PATH), status)
