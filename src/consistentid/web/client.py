"""Client of the HTTP API: what a program needs to make portraits on another machine."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2 as httpx

from consistentid.errors import ConsistentIDError
from consistentid.generation.settings import GenerationSettings
from consistentid.web.analysis_schemas import Analysis
from consistentid.web.jobs import PortraitRequest
from consistentid.web.schemas import PortraitEvent, PortraitStatus
from consistentid.web.state_schemas import Models

_PATIENCE = 20  # times that a busy server is asked again


class ServerRefused(ConsistentIDError):
    """The server answered with a problem, or not at all.

    Attributes:
        status: of the HTTP response, None when there was none.
        kind: last word of the problem's type, such as `no-face-found`.
    """

    def __init__(self, message: str, *, status: int | None = None, kind: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


class Client:
    """Speaks to one server.

    Args:
        url: of the server, without /v1.
        api_key: when it needs one.
        timeout: seconds for an answer, and between two events.
        transport: how requests travel; for tests.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout: float = 60,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def submit(
        self,
        photo: Path | bytes,
        prompt: str,
        *,
        settings: GenerationSettings | None = None,
        parts: Mapping[str, Path | bytes] | None = None,
        blend_with: Path | bytes | None = None,
        same: Sequence[Path | bytes] = (),
        beside: Sequence[Path | bytes] = (),
        image: Path | bytes | None = None,
        mask_image: Path | bytes | None = None,
        into: Path | bytes | None = None,
        idempotency_key: str | None = None,
        **task: Any,
    ) -> PortraitStatus:
        """Queue a job; a server that is busy is asked again when it says.

        Args:
            photo: of the person.
            prompt: what the portrait shall show.
            settings: everything else.
            parts: photo of who gives a part instead, by part.
            blend_with: photo of a second person.
            same: more photos of the person.
            beside: photos of other people in the same picture.
            image: picture that a task changes, instead of the photo.
            mask_image: white where it is repainted.
            into: picture that the person is put into, in the place of `into_face`.
            idempotency_key: the same key with the same request gives the same job.
            **task: what is changed: `task`, `strength`, `mask`, `mask_feather`, `mask_match` and `into_face` of
                `PortraitRequest`.

        Raises:
            ServerRefused: it answers with a problem, or not at all.
        """
        given = {} if settings is None else settings.model_dump(exclude_unset=True)
        request = PortraitRequest(prompt=prompt, **given, **task)
        files = [("photo", _file(photo)), *((f"parts.{part}", _file(one)) for part, one in (parts or {}).items())]
        single = {"blend_with": blend_with, "image": image, "mask_image": mask_image, "into": into}
        files += [(role, _file(one)) for role, one in single.items() if one is not None]
        files += [(role, _file(one)) for role, several in (("same", same), ("beside", beside)) for one in several]
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        answer = self._patiently(
            "POST",
            "/v1/portraits",
            data={"request": request.model_dump_json(exclude_unset=True)},
            files=files,
            headers=headers,
        )
        return PortraitStatus.model_validate_json(answer.content)

    def status(self, id_: str) -> PortraitStatus:
        """Where a job stands.

        Raises:
            ServerRefused: as in `submit`.
        """
        return PortraitStatus.model_validate_json(self._send("GET", f"/v1/portraits/{id_}").content)

    def follow(self, id_: str) -> Iterator[PortraitEvent]:
        """Every change of a job until it ends.

        Raises:
            ServerRefused: as in `submit`.
        """
        try:
            with self._http.stream("GET", f"/v1/portraits/{id_}/events") as answer:
                if answer.is_error:
                    answer.read()
                    raise _refusal(answer)
                for line in answer.iter_lines():
                    if line.startswith("data:"):
                        yield PortraitEvent.model_validate_json(line.removeprefix("data:"))
        except httpx.HTTPError as error:
            raise _unreachable(self._http, error) from None

    def wait(self, id_: str) -> PortraitStatus:
        """A job's status once it has ended; when the connection breaks, it is looked at again.

        Raises:
            ServerRefused: as in `submit`.
        """
        while not (status := self.status(id_)).state.is_final:
            try:
                for _ in self.follow(id_):
                    pass
            except ServerRefused as refusal:
                if refusal.status is not None:
                    raise
                time.sleep(1)
        return status

    def images(self, status: PortraitStatus) -> list[bytes | None]:
        """The portraits of a job as PNG; None for those that the safety checker withheld.

        Raises:
            ServerRefused: as in `submit`, or the job failed; the message says why.
        """
        if status.error is not None or not status.portraits:
            raise ServerRefused(status.error or f"the job has no portraits: it is {status.state}")
        return [None if one.url is None else self._send("GET", one.url).content for one in status.portraits]

    def delete(self, id_: str) -> None:
        """Cancel a job and delete everything of it.

        Raises:
            ServerRefused: as in `submit`.
        """
        self._send("DELETE", f"/v1/portraits/{id_}")

    def delete_all(self) -> int:
        """Delete everything of the key; how many jobs there were.

        Raises:
            ServerRefused: as in `submit`.
        """
        return int(self._send("DELETE", "/v1/portraits").json()["deleted"])

    def analyse(self, photo: Path | bytes, *, face: int | str = "largest") -> Analysis:
        """What is found in a photo.

        Raises:
            ServerRefused: as in `submit`.
        """
        answer = self._patiently("POST", "/v1/analyses", files=[("photo", _file(photo))], data={"face": str(face)})
        return Analysis.model_validate_json(answer.content)

    def models(self) -> Models:
        """What is served.

        Raises:
            ServerRefused: as in `submit`.
        """
        return Models.model_validate_json(self._send("GET", "/v1/models").content)

    def _patiently(self, method: str, path: str, **options: Any) -> httpx.Response:
        for _ in range(_PATIENCE):
            try:
                return self._send(method, path, **options)
            except _Busy as busy:
                time.sleep(busy.seconds)
        return self._send(method, path, **options)

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise _unreachable(self._http, error) from None
        if answer.is_error:
            raise _refusal(answer)
        return answer


class _Busy(ServerRefused):
    """The server says when to come back."""

    seconds = 1.0


def _refusal(answer: httpx.Response) -> ServerRefused:
    try:
        problem = json.loads(answer.content)
        message, kind = str(problem["detail"]), str(problem["type"]).rpartition(":")[2]
    except (ValueError, KeyError, TypeError):
        message, kind = f"{answer.url.host} answered {answer.status_code}, and not as this API does", ""
    busy = answer.status_code in {429, 503} and "Retry-After" in answer.headers
    refusal = (_Busy if busy else ServerRefused)(message, status=answer.status_code, kind=kind)
    if isinstance(refusal, _Busy):
        refusal.seconds = float(answer.headers["Retry-After"])
    return refusal


def _unreachable(http: httpx.Client, error: Exception) -> ServerRefused:
    return ServerRefused(f"the server at {http.base_url} does not answer ({error or type(error).__name__})")


def _file(photo: Path | bytes) -> tuple[str, bytes]:
    """A form's file; its name says nothing."""
    return ("photo", photo if isinstance(photo, bytes) else photo.read_bytes())
