"""Files of jobs in a bucket that speaks S3."""

from collections.abc import Sequence
from typing import Any

from consistentid.errors import InvalidSettings
from consistentid.web.errors import StoreFailed


class S3FileStore:
    """A `FileStore` in a bucket; objects are there whole or not at all by themselves.

    Args:
        bucket: its name, with an optional prefix: `bucket/prefix`.
        endpoint: of a server other than AWS.

    Credentials and region come from the usual variables (`AWS_ACCESS_KEY_ID`, …).

    Raises:
        InvalidSettings: obstore is not installed, or the bucket cannot be reached.
    """

    def __init__(self, bucket: str, *, endpoint: str | None = None) -> None:
        try:
            from obstore.exceptions import BaseError
            from obstore.store import S3Store
        except ModuleNotFoundError:
            raise InvalidSettings(
                "a store in S3 needs obstore, which is not installed: pip install 'consistentid[serve-scale]'"
            ) from None
        self._error = BaseError
        name, _, prefix = bucket.partition("/")
        options: dict[str, Any] = (
            {} if endpoint is None else {"endpoint": endpoint, "virtual_hosted_style_request": False}
        )
        try:
            self._store = S3Store(
                name,
                prefix=prefix or None,
                client_options={"allow_http": endpoint is not None and endpoint.startswith("http://")},
                retry_config={"max_retries": 3},
                **options,
            )
            next(iter(self._store.list()), None)
        except BaseError as error:
            reason = str(error).partition("\n")[0][:200]
            raise InvalidSettings(f"the bucket {name} cannot be used ({reason})") from None

    def put(self, job: str, name: str, content: bytes) -> None:
        """See `FileStore`."""
        try:
            self._store.put(f"{job}/{name}", content)
        except self._error:
            raise StoreFailed("the server cannot write to its store; try again later") from None

    def get(self, job: str, name: str) -> bytes | None:
        """See `FileStore`."""
        try:
            return bytes(self._store.get(f"{job}/{name}").bytes())
        except FileNotFoundError:
            return None
        except self._error:
            raise StoreFailed("the server cannot read its store; try again later") from None

    def delete(self, job: str, names: Sequence[str] | None = None) -> None:
        """See `FileStore`."""
        try:
            paths = [f"{job}/{name}" for name in names or ()]
            if names is None:
                paths = [one["path"] for batch in self._store.list(job) for one in batch]
            if paths:
                self._store.delete(paths)
        except FileNotFoundError:
            return
        except self._error:
            raise StoreFailed("the server cannot delete from its store; try again later") from None

    def old(self, *, before: float) -> list[str]:
        """See `FileStore`."""
        newest: dict[str, float] = {}
        for batch in self._store.list():
            for one in batch:
                job = one["path"].partition("/")[0]
                newest[job] = max(newest.get(job, 0.0), one["last_modified"].timestamp())
        return sorted(job for job, changed in newest.items() if changed < before)
