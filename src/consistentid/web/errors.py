"""Refusals of the server; each knows its HTTP status."""

from consistentid.errors import ConsistentIDError


class ServingError(ConsistentIDError):
    """Root of the server's own refusals.

    Attributes:
        status: of the HTTP response.
        retry_after: seconds after which the same request may be accepted.
    """

    status = 400
    retry_after: int | None = None


class MalformedRequest(ServingError):
    """The body cannot be read as what its content type says."""


class MissingKey(ServingError):
    """No API key, or one that is not known, was given."""

    status = 401


class UnknownJob(ServingError):
    """There is no such job, or it is somebody else's."""

    status = 404


class NotFinished(ServingError):
    """The job has no result, or not yet."""

    status = 409


class BodyTooLarge(ServingError):
    """A body has more bytes than are accepted."""

    status = 413


class UnsupportedBody(ServingError):
    """The content type of a body is not accepted."""

    status = 415


class KeyReused(ServingError):
    """An idempotency key came back with another request."""

    status = 422


class TooManyRequests(ServingError):
    """The caller is too fast, or the queue is full."""

    status = 429

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class StoreFailed(ServingError):
    """A file cannot be written or read."""

    status = 503
    retry_after = 60


class Forbidden(ServingError):
    """A web page of another site asks, or under a name that is not this machine's."""

    status = 403


class NotServing(ServingError):
    """The server is being stopped."""

    status = 503
    retry_after = 10
