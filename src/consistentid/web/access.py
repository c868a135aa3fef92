"""Who may ask, and how often."""

import hashlib
import hmac
import time
from collections.abc import Sequence
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from limits import parse
from limits.storage import storage_from_string
from limits.strategies import MovingWindowRateLimiter

from consistentid.web.errors import Forbidden, MissingKey, TooManyRequests

LOCAL = "local"  # the owner of everything where there are no keys
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_bearer = HTTPBearer(auto_error=False, description="An API key; needed unless the server listens on loopback alone.")


class Access:
    """Knows the keys and counts requests.

    Args:
        keys: with none, everybody on this machine may ask.
        rate: as `limits` writes it.
        counters: where requests are counted, so that several servers count together.
    """

    def __init__(self, keys: Sequence[str], *, rate: str, counters: str = "memory://") -> None:
        self._keys = [hashlib.sha256(key.encode()).digest() for key in keys]
        self._rate = parse(rate)
        self._limiter = MovingWindowRateLimiter(storage_from_string(counters))

    def owner(self, request: Request, key: str | None) -> str:
        """Whose jobs a request may see: a name made of its key.

        Raises:
            MissingKey: the key is missing or unknown.
            Forbidden: there are no keys, and the request comes from a page of another site.
        """
        if not self._keys:
            _check_local(request)
            return LOCAL
        return self.of_key(key)

    @property
    def has_keys(self) -> bool:
        """Whether one is needed."""
        return bool(self._keys)

    def of_key(self, key: str | None) -> str:
        """The name made of a key.

        Raises:
            MissingKey: the key is missing or unknown.
        """
        digest = hashlib.sha256((key or "").encode()).digest()
        # All are compared, and each in constant time.
        if not sum([hmac.compare_digest(digest, known) for known in self._keys]):
            raise MissingKey("an API key is needed: send the header Authorization: Bearer KEY")
        return f"key-{digest.hex()[:32]}"

    def count(self, client: str) -> None:
        """Count a request of a client.

        Raises:
            TooManyRequests: there were too many.
        """
        if not self._limiter.hit(self._rate, client):
            free = self._limiter.get_window_stats(self._rate, client).reset_time - time.time()
            raise TooManyRequests(f"more than {self._rate} requests; slow down", retry_after=max(1, int(free + 0.999)))


def owner(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)] = None
) -> str:
    """Dependency of every route with data of people."""
    access: Access = request.app.state.access
    return access.owner(request, None if credentials is None else credentials.credentials)


Owner = Annotated[str, Depends(owner)]


def counted(request: Request, name: Owner) -> str:
    """Likewise, of the routes that cost much: clients without a key are told apart by their address."""
    access: Access = request.app.state.access
    host = request.client.host if request.client else ""
    access.count(name if name != LOCAL else f"{LOCAL}-{host}")
    return name


CountedOwner = Annotated[str, Depends(counted)]


def _check_local(request: Request) -> None:
    """Without keys, the browser's word is all that keeps other sites' pages away."""
    if request.url.hostname not in _LOOPBACK:
        raise Forbidden("without API keys this server answers only under the names of this machine, such as localhost")
    if request.headers.get("Sec-Fetch-Site") in {"cross-site", "same-site"}:
        raise Forbidden("without API keys this server does not answer pages of other sites")
