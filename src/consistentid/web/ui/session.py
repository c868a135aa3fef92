"""One browser session: the photo and what was found in it, the portraits and the history. Knows nothing of Gradio."""

import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Self

from PIL import Image

from consistentid.errors import ConsistentIDError, InvalidSettings
from consistentid.evaluation.likeness import Likeness, likeness_of
from consistentid.faces.analysis import FaceAnalysis
from consistentid.generation.portrait import write_bytes, write_text
from consistentid.web.jobs import PHOTO, JobState, PortraitJob, PortraitRequest, Progress
from consistentid.web.service import PortraitService

_HISTORY = 30  # entries


@dataclass(frozen=True, eq=False)
class Entry:
    """Portraits of one request.

    Attributes:
        request: what was asked for.
        pictures: PNG files, the record inside.
        records: JSON file of each.
        reference: what was found in the photo.
    """

    request: PortraitRequest
    pictures: tuple[Path, ...]
    records: tuple[Path, ...]
    reference: FaceAnalysis


@dataclass(frozen=True, eq=False)
class Session:
    """What the page remembers between two clicks; it is replaced, never changed.

    Attributes:
        name: secret; owner of the session's jobs, and name of its folder.
        photo: file content.
        analysis: of the chosen face.
        face: the choice; None for the model's own.
        job: that is made now.
        kept: settings that came with a portrait or the history, and have no control.
        entries: the history, newest first.
        shown: of these, the one whose portraits are shown.
        picture: of its portraits, the one that was chosen.
    """

    name: str
    photo: bytes | None = None
    analysis: FaceAnalysis | None = None
    face: int | None = None
    job: str | None = None
    kept: dict[str, object] = field(default_factory=dict)
    entries: tuple[Entry, ...] = ()
    shown: Entry | None = None
    picture: int = 0

    @classmethod
    def new(cls) -> Self:
        """A session of somebody who just came."""
        return cls(name=f"app-{secrets.token_hex(16)}")

    @property
    def caption(self) -> str | None:
        """Of the face that was found."""
        return None if self.analysis is None else self.analysis.description


class Sessions:
    """What a session can do, on the service's own queue and worker.

    Args:
        service: makes the portraits.
        folder: of the sessions' files.
    """

    def __init__(self, service: PortraitService, folder: Path) -> None:
        self.service = service
        self.folder = folder

    def look_at(self, session: Session, photo: bytes, *, face: int | None = None) -> Session:
        """Find the face in a photo.

        Raises:
            ConsistentIDError: there is none, or it is no photo.
        """
        analysis = self.service.analyse(photo, face=self._usual_face if face is None else face)
        return replace(session, photo=photo, analysis=analysis, face=face)

    def boxes(self, session: Session) -> list[tuple[float, float, float, float]]:
        """Of every face in the photo that can be chosen, the largest first."""
        if session.analysis is None:
            return []
        return self.service.faces(session.analysis)

    def submit(self, session: Session, request: PortraitRequest) -> Session:
        """Queue a request.

        Raises:
            ConsistentIDError: it is refused, or there is no photo yet.
        """
        if session.photo is None:
            raise InvalidSettings("first give a photo in which one face looks at the camera")
        if session.face is not None:
            request = request.model_copy(update={"face": session.face})
        job = self.service.queue.submit(request, [(PHOTO, session.photo)], owner=session.name)
        return replace(session, job=job.id)

    def follow(self, session: Session) -> Iterator[Progress]:
        """Every change of the session's job until it ends."""
        if session.job is not None:
            yield from self.service.queue.follow(session.job, owner=session.name)

    def cancel(self, session: Session) -> None:
        """Stop the session's job, when there is one."""
        if session.job is not None:
            self.service.queue.cancel(session.job, owner=session.name)

    def finished(self, session: Session, job: PortraitJob) -> Session:
        """Fetch the portraits of a job that ended, and put them into the history.

        Raises:
            ConsistentIDError: it made none; the message says why.
        """
        session = replace(session, job=None)
        if job.state is not JobState.SUCCEEDED or session.analysis is None:
            raise InvalidSettings(job.error or "cancelled; nothing was made")
        made = [index for index in range(job.images) if index not in job.withheld]
        if not made:
            raise InvalidSettings("the model's safety checker withheld every portrait; change the words or the number")
        queue, folder = self.service.queue, self.folder / session.name
        records = queue.records(job.id, owner=session.name)
        pictures, texts = [], []
        for index, record in zip(made, records, strict=True):
            stem = folder / f"portrait-{job.id[:8]}-seed-{job.request.seed + index}"
            pictures.append(stem.with_suffix(".png"))
            write_bytes(pictures[-1], queue.image(job.id, index, owner=session.name))
            texts.append(stem.with_suffix(".json"))
            write_text(texts[-1], record.model_dump_json(indent=2))
        entry = Entry(job.request, tuple(pictures), tuple(texts), session.analysis)
        return replace(session, entries=(entry, *session.entries)[:_HISTORY], shown=entry, picture=0)

    def compared(self, session: Session) -> Likeness:
        """The chosen portrait beside its photo.

        Raises:
            ConsistentIDError: nothing is shown, or they cannot be compared.
        """
        analyzer, entry = self.service.generator.analyzer, session.shown
        if entry is None or analyzer is None:
            raise InvalidSettings("make a portrait first; then it can be compared with the photo")
        content = entry.pictures[session.picture].read_bytes()
        return likeness_of(Image.open(BytesIO(content)).convert("RGB"), entry.reference, analyzer=analyzer)

    def forget(self, session: Session) -> None:
        """Delete everything of a session: jobs, photos, portraits."""
        self.service.queue.delete_all(owner=session.name)
        shutil.rmtree(self.folder / session.name, ignore_errors=True)

    @property
    def _usual_face(self) -> str | int:
        return self.service.generator.adapter.config.quirks.face


def said(error: Exception) -> str:
    """An error as a sentence for the page; of those that are not ours, no detail."""
    text = str(error) if isinstance(error, ConsistentIDError) else "something failed here; the server's log says what"
    return text[:1].upper() + text[1:].rstrip(".") + "."
