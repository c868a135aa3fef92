"""One browser session: the photo and what was found in it, the portraits and the history. Knows nothing of Gradio."""

import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Self

from PIL import Image

from consistentid.errors import ConsistentIDError, GenerationCancelled, InvalidSettings
from consistentid.evaluation.likeness import Likeness, likeness_of
from consistentid.faces.analysis import FaceAnalysis
from consistentid.generation.portrait import read_settings, write_bytes, write_text
from consistentid.generation.settings import PortraitSettings
from consistentid.images import pixels_sha256
from consistentid.web.access import Access
from consistentid.web.errors import NotFinished, UnknownJob
from consistentid.web.jobs import PHOTO, JobState, PortraitRequest, Progress
from consistentid.web.service import PortraitService
from consistentid.web.ui.given import Given, Uploads
from consistentid.web.ui.ownership import Ownership
from consistentid.web.uploads import checked_photo

_HISTORY = 30  # entries
PHOTO_FIRST = "first give a photo in which a face looks at the camera"


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

    @property
    def is_kept(self) -> bool:
        """Whether its files are there: jobs may be deleted over the API, or because their time is over."""
        return all(path.is_file() for path in (*self.pictures, *self.records))


@dataclass(frozen=True, eq=False)
class Draft:
    """What the next portraits are made from, besides the controls; it is replaced, never changed.

    Attributes:
        photo: of the person.
        analysis: of the chosen face.
        face: the choice; None for the model's own.
        kept: settings that came with a portrait or the history, and have no control.
    """

    photo: Given | None = None
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
        name: secret; of its folder.
        owner: of its jobs; empty until there is one.
        job: that is made now.
        jobs: every one of it.
        entries: the history, newest first.
        shown: of these, the one whose portraits are shown.
        picture: of its portraits, the one that was chosen.
    """

    name: str
    owner: str = ""
    job: str | None = None
    jobs: tuple[str, ...] = ()
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
        ownership: whose they are.
        access: counts what costs much, as over the API.
    """

    def __init__(self, service: PortraitService, folder: Path, *, ownership: Ownership, access: Access) -> None:
        self.service = service
        self.folder = folder
        self.ownership = ownership
        self.uploads = Uploads(ownership)
        self._access = access
        service.queue.on_deletion(self._deleted)

    def given(self, draft: Draft, upload: Path | None, *, owner: str) -> Draft:
        """A draft with the photo in a file that was given instead of the one before, which is deleted; None: no photo.

        Raises:
            UnreadableImage: it is somebody else's, or gone.
        """
        return Draft(self.uploads.instead(draft.photo, upload, owner=owner), kept=draft.kept)

    def other(self, before: Given | None, upload: Path | None, *, owner: str) -> Given | None:
        """A photo besides the one of the person, in which a face was found, likewise.

        Raises:
            ConsistentIDError: it is somebody else's, or gone, or there is no face in it; then it is deleted.
        """
        given = self.uploads.instead(before, upload, owner=owner)
        if given is None:
            return None
        try:
            self._access.count(owner)
            return replace(given, sha256=pixels_sha256(self.service.analyse(given.content).photo))
        except Exception:
            self.uploads.release(given)
            raise

    def settings_in(self, upload: Path, *, owner: str) -> PortraitSettings:
        """The record in a portrait that was given; the file is deleted.

        Raises:
            ConsistentIDError: there is none in it.
        """
        given = self.uploads.given(upload, owner=owner)
        try:
            checked_photo(given.content, max_pixels=self.service.config.max_pixels, name="the file")
            return read_settings(upload)
        finally:
            self.uploads.release(given)

    def look_at(self, draft: Draft, *, face: int | None = None) -> Draft:
        """Find the face in the photo.

        Raises:
            ConsistentIDError: there is none, or it is no photo.
        """
        if draft.photo is None:
            raise InvalidSettings(PHOTO_FIRST)
        self._access.count(draft.photo.owner)
        usual = self.service.generator.adapter.config.quirks.face
        analysis = self.service.analyse(draft.photo.content, face=usual if face is None else face)
        return replace(draft, analysis=analysis, face=face)

    def boxes(self, draft: Draft) -> list[tuple[float, float, float, float]]:
        """Of every face in the photo that can be chosen, the largest first."""
        analyzer = self.service.generator.analyzer
        boxes = [] if draft.analysis is None else self.service.faces(draft.analysis)
        smallest = 0 if analyzer is None else analyzer.min_face
        return [box for box in boxes if (box[2] - box[0] + box[3] - box[1]) / 2 >= smallest]

    def submit(
        self,
        session: Session,
        draft: Draft,
        request: PortraitRequest,
        *,
        others: Sequence[tuple[str, bytes]] = (),
        owner: str,
    ) -> Session:
        """Queue a request, with photos besides; it is the owner's as if it had come over the API.

        Raises:
            ConsistentIDError: it is refused, or there is no photo yet.
        """
        if draft.photo is None or draft.analysis is None:
            raise InvalidSettings(PHOTO_FIRST)
        self._access.count(owner)
        if draft.face is not None:
            request = request.model_copy(update={"face": draft.face})
        job = self.service.queue.submit(request, [(PHOTO, draft.photo.content), *others], owner=owner)
        return replace(session, owner=owner, job=job.id, jobs=(*session.jobs, job.id))

    def follow(self, session: Session) -> Iterator[Progress]:
        """Every change of the session's job until it ends."""
        if session.job is not None:
            yield from self.service.queue.follow(session.job, owner=session.owner)

    def cancel(self, session: Session) -> None:
        """Stop the session's job, when there is one."""
        if session.job is not None:
            self.service.queue.cancel(session.job, owner=session.owner)

    def finished(self, session: Session, *, reference: FaceAnalysis) -> Session:
        """Fetch the portraits of the session's job, which has ended, and put them into the history.

        Args:
            session: that submitted it.
            reference: what was found in its photo.

        Raises:
            ConsistentIDError: it made none; the message says why.
        """
        queue = self.service.queue
        job = queue.get(session.job or "", owner=session.owner)
        if job.state is not JobState.SUCCEEDED:
            raise NotFinished(job.error) if job.error else GenerationCancelled("cancelled; nothing was made")
        made = [index for index in range(job.images) if index not in job.withheld]
        if not made:
            raise InvalidSettings("the model's safety checker withheld every portrait; change the words or the number")
        folder = self.folder / session.name / job.id
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.ownership.add(folder, owner=session.owner)
        records = queue.records(job.id, owner=session.owner)
        pictures, texts = [], []
        for index, record in zip(made, records, strict=True):
            stem = folder / f"portrait-{job.id[:8]}-seed-{job.request.seed + index}"
            pictures.append(stem.with_suffix(".png"))
            write_bytes(pictures[-1], queue.image(job.id, index, owner=session.owner))
            texts.append(stem.with_suffix(".json"))
            write_text(texts[-1], record.model_dump_json(indent=2))
        entry = Entry(job.request, tuple(pictures), tuple(texts), reference)
        entries = (entry, *(each for each in session.entries if each.is_kept))[:_HISTORY]
        return replace(session, job=None, entries=entries, shown=entry, picture=0)

    def compared(self, session: Session) -> Likeness:
        """The chosen portrait beside its photo.

        Raises:
            ConsistentIDError: nothing is shown, or they cannot be compared.
        """
        analyzer, entry = self.service.generator.analyzer, session.shown
        if entry is None or not entry.is_kept or analyzer is None:
            raise InvalidSettings("make a portrait first; then it can be compared with the photo")
        content = entry.pictures[session.picture].read_bytes()
        return likeness_of(Image.open(BytesIO(content)).convert("RGB"), entry.reference, analyzer=analyzer)

    def forget(self, session: Session) -> None:
        """Delete everything that a session made."""
        for job in session.jobs:
            with suppress(UnknownJob):  # deleted over the API, or its time was over
                self.service.queue.delete(job, owner=session.owner)
        self.service.forget()  # photos that were looked at, but not used
        shutil.rmtree(self.folder / session.name, ignore_errors=True)

    def _deleted(self, jobs: Sequence[str]) -> None:
        """Jobs were deleted, here or over the API, so what the page shows of them goes, too."""
        for job in jobs:
            for folder in self.folder.glob(f"*/{job}"):
                shutil.rmtree(folder, ignore_errors=True)


def said(error: ConsistentIDError) -> str:
    """A refusal as a sentence for the page."""
    text = str(error)
    return text[:1].upper() + text[1:].rstrip(".") + "."
