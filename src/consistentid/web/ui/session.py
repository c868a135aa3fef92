"""One browser session: the photo and what was found in it, the portraits and the history. Knows nothing of Gradio."""

import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Self

from PIL import Image

from consistentid.errors import ConsistentIDError, GenerationCancelled, InvalidSettings
from consistentid.evaluation.likeness import Likeness, likeness_of
from consistentid.faces.analysis import FaceAnalysis
from consistentid.generation.portrait import write_bytes, write_text
from consistentid.web.errors import NotFinished
from consistentid.web.jobs import PHOTO, JobState, PortraitRequest, Progress
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
class Draft:
    """What the next portraits are made from, besides the controls; it is replaced, never changed.

    Attributes:
        photo: file content.
        analysis: of the chosen face.
        face: the choice; None for the model's own.
        kept: settings that came with a portrait or the history, and have no control.
    """

    photo: bytes | None = None
    analysis: FaceAnalysis | None = None
    face: int | None = None
    kept: dict[str, object] = field(default_factory=dict)

    @classmethod
    def new(cls) -> Self:
        """Nothing yet."""
        return cls()

    @property
    def caption(self) -> str | None:
        """Of the face that was found."""
        return None if self.analysis is None else self.analysis.description


@dataclass(frozen=True, eq=False)
class Session:
    """What was made in a browser tab; it is replaced, never changed.

    Attributes:
        name: secret; owner of the session's jobs, and name of its folder.
        job: that is made now.
        entries: the history, newest first.
        shown: of these, the one whose portraits are shown.
        picture: of its portraits, the one that was chosen.
    """

    name: str
    job: str | None = None
    entries: tuple[Entry, ...] = ()
    shown: Entry | None = None
    picture: int = 0

    @classmethod
    def new(cls) -> Self:
        """A session of somebody who just came."""
        return cls(name=f"app-{secrets.token_hex(16)}")


class Sessions:
    """What a session can do, on the service's own queue and worker.

    Args:
        service: makes the portraits.
        folder: of the sessions' files; inside Gradio's own, which then makes no copies.
    """

    def __init__(self, service: PortraitService, folder: Path) -> None:
        self.service = service
        self.folder = folder

    def look_at(self, draft: Draft, photo: bytes, *, face: int | None = None) -> Draft:
        """Find the face in a photo.

        Raises:
            ConsistentIDError: there is none, or it is no photo.
        """
        usual = self.service.generator.adapter.config.quirks.face
        analysis = self.service.analyse(photo, face=usual if face is None else face)
        return replace(draft, photo=photo, analysis=analysis, face=face)

    def boxes(self, draft: Draft) -> list[tuple[float, float, float, float]]:
        """Of every face in the photo that can be chosen, the largest first."""
        return [] if draft.analysis is None else self.service.faces(draft.analysis)

    def submit(self, session: Session, draft: Draft, request: PortraitRequest) -> Session:
        """Queue a request.

        Raises:
            ConsistentIDError: it is refused, or there is no photo yet.
        """
        if draft.photo is None:
            raise InvalidSettings("first give a photo in which a face looks at the camera")
        if draft.face is not None:
            request = request.model_copy(update={"face": draft.face})
        job = self.service.queue.submit(request, [(PHOTO, draft.photo)], owner=session.name)
        return replace(session, job=job.id)

    def follow(self, session: Session) -> Iterator[Progress]:
        """Every change of the session's job until it ends."""
        if session.job is not None:
            yield from self.service.queue.follow(session.job, owner=session.name)

    def cancel(self, session: Session) -> None:
        """Stop the session's job, when there is one."""
        if session.job is not None:
            self.service.queue.cancel(session.job, owner=session.name)

    def finished(self, session: Session, *, reference: FaceAnalysis) -> Session:
        """Fetch the portraits of the session's job, which has ended, and put them into the history.

        Args:
            session: that submitted it.
            reference: what was found in its photo.

        Raises:
            ConsistentIDError: it made none; the message says why.
        """
        queue, folder = self.service.queue, self.folder / session.name
        job = queue.get(session.job or "", owner=session.name)
        if job.state is not JobState.SUCCEEDED:
            raise NotFinished(job.error) if job.error else GenerationCancelled("cancelled; nothing was made")
        made = [index for index in range(job.images) if index not in job.withheld]
        if not made:
            raise InvalidSettings("the model's safety checker withheld every portrait; change the words or the number")
        records = queue.records(job.id, owner=session.name)
        pictures, texts = [], []
        for index, record in zip(made, records, strict=True):
            stem = folder / f"portrait-{job.id[:8]}-seed-{job.request.seed + index}"
            pictures.append(stem.with_suffix(".png"))
            write_bytes(pictures[-1], queue.image(job.id, index, owner=session.name))
            texts.append(stem.with_suffix(".json"))
            write_text(texts[-1], record.model_dump_json(indent=2))
        entry = Entry(job.request, tuple(pictures), tuple(texts), reference)
        return replace(session, job=None, entries=(entry, *session.entries)[:_HISTORY], shown=entry, picture=0)

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

    def forget(self, session: Session, *, upload: Path | None = None) -> None:
        """Delete everything of a session: jobs, portraits, and the photo that was uploaded."""
        self.service.queue.delete_all(owner=session.name)
        shutil.rmtree(self.folder / session.name, ignore_errors=True)
        if upload is not None:
            upload.unlink(missing_ok=True)


def said(error: ConsistentIDError) -> str:
    """A refusal as a sentence for the page."""
    text = str(error)
    return text[:1].upper() + text[1:].rstrip(".") + "."
