"""What happens when something on the page is used: an event in, new values of components out."""

import json
import logging
import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import wraps
from typing import Any

import gradio as gr

from consistentid.errors import ConsistentIDError, GenerationCancelled
from consistentid.web.ui import fragments
from consistentid.web.ui.form import Form
from consistentid.web.ui.others_controls import Place
from consistentid.web.ui.page import PHOTO_WANTED, Page
from consistentid.web.ui.restoring import Restoring
from consistentid.web.ui.session import Draft, Entry, Session, Sessions, said

logger = logging.getLogger(__name__)

Values = dict[Any, Any]

BROKEN = "Something failed here; the server's log says what."


def _logged(answer: Callable[..., Any]) -> Callable[..., Any]:
    """An answer whose failures become a sentence on the page, and its cause an entry of the log."""

    @wraps(answer)
    def logged(*given: Any) -> Any:
        try:
            return answer(*given)
        except Exception:
            logger.exception("the page failed")
            raise gr.Error(BROKEN, print_exception=False) from None

    return logged


class Events:
    """Answers of the page.

    Args:
        page: its components.
        sessions: what a session can do.
        usual: the model's values.
    """

    def __init__(self, page: Page, sessions: Sessions, *, usual: Form) -> None:
        self.page, self.sessions, self.usual = page, sessions, usual
        self.restoring = Restoring(page, sessions, usual=usual)

    def connect(self) -> None:
        """Tie the answers to the components; call it inside `gr.Blocks`."""
        page, controls = self.page, self.page.controls
        private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        about_photo = [
            page.draft, page.photo_notice, page.parts, page.found, page.faces, controls.caption,
            *controls.uses.values(), controls.consent, page.forget,
        ]  # fmt: skip
        page.photo.change(_logged(self.look_at), {page.photo, page.draft}, about_photo, **private)
        page.faces.input(_logged(self.choose_face), {page.faces, page.draft}, about_photo, **private)
        for preset, button in page.presets:
            button.click(lambda preset=preset: preset.prompt, None, controls.prompt, **private)
        for place in page.others.places.values():
            place.photo.change(
                _logged(self.looking_at(place)), {place.photo, place.given, controls.consent},
                [place.given, place.notice, controls.consent, page.forget], **private,
            )  # fmt: skip
        settings = {*controls.all, *page.others.all}
        form, wanted = [page.draft, page.stage, *settings], {page.draft, *settings, *page.others.states}
        page.reuse.upload(_logged(self.restoring.take_settings), {page.reuse, *wanted}, [*form, page.reuse], **private)
        page.usual.click(_logged(self.restoring.take_usual), wanted, form, **private)
        shown = [page.session, page.gallery, page.results, page.picture, page.record, page.likeness]
        past = [page.history, page.past]
        making = [*shown, *past, page.stage, page.make, page.cancel, controls.seed]
        gr.on(
            [page.make.click, controls.prompt.submit], self.make, {page.session, *wanted}, making,
            trigger_mode="once", **private,
        )  # fmt: skip
        page.cancel.click(_logged(self.cancel), page.session, page.stage, **private)
        page.gallery.select(_logged(self.choose_picture), page.session, shown, **private)
        page.compare.click(_logged(self.compare), page.session, page.likeness, **private)
        page.history.select(_logged(self.restore), {page.session, *wanted}, [*shown, *form], **private)
        gone = [each for place in page.others.places.values() for each in (place.photo, place.given)]
        notices = {place.notice for place in page.others.places.values()}
        page.forget.click(
            _logged(self.forget), {page.session, page.draft, *page.others.states},
            [*shown, *past, page.stage, page.photo, page.draft, *gone, *notices], **private,
        )  # fmt: skip

    def look_at(self, values: Values, request: gr.Request) -> Values:
        """A photo was given or taken away."""
        path, draft = values[self.page.photo], values[self.page.draft]
        try:
            draft = self.sessions.given(draft, path, owner=request.username)
        except ConsistentIDError as error:
            return self._without_photo(Draft(kept=draft.kept), said(error), wrong=True)
        if path is None:
            return self._without_photo(draft, PHOTO_WANTED)
        about = self._looked_at(draft, face=None)
        return {**about, self.page.controls.consent: False, self.page.forget: gr.Button(visible=True)}

    def choose_face(self, values: Values) -> Values:
        """Another face of the same photo was chosen."""
        return self._looked_at(values[self.page.draft], face=values[self.page.faces])

    def _looked_at(self, draft: Draft, *, face: int | None) -> Values:
        page = self.page
        try:
            draft = self.sessions.look_at(draft, face=face)
            boxes = self.sessions.boxes(draft)
        except ConsistentIDError as error:
            return self._without_photo(replace(draft, analysis=None, face=None), said(error), wrong=True)
        assert draft.analysis is not None
        visible = draft.analysis.region_masks
        choices = [(f"Face {number + 1}", number) for number in range(len(boxes))]
        chosen = boxes.index(draft.analysis.box)
        return {
            page.draft: draft,
            page.photo_notice: fragments.found_notice(visible, faces=len(boxes), chosen=chosen),
            page.parts: gr.Column(visible=True),
            page.found: fragments.found(draft.analysis, boxes),
            page.faces: gr.Radio(choices=choices, value=chosen, visible=len(boxes) > 1),
            page.controls.caption: draft.caption or "",
            **{control: gr.Checkbox(interactive=name in visible) for name, control in page.controls.uses.items()},
        }

    def _without_photo(self, draft: Draft, sentence: str, *, wrong: bool = False) -> Values:
        return {
            self.page.draft: draft,
            self.page.photo_notice: fragments.notice(sentence, wrong=wrong),
            self.page.parts: gr.Column(visible=False),
        }

    def looking_at(self, place: Place) -> Callable[[Values, gr.Request], Values]:
        """What happens when a photo was given in a place for others, or taken away."""
        page, consent = self.page, self.page.controls.consent

        def look(values: Values, request: gr.Request) -> Values:
            try:
                given = self.sessions.other(values[place.given], values[place.photo], owner=request.username)
            except ConsistentIDError as error:
                sentence = f"{place.label}: {str(error).rstrip('.')}."
                return {place.given: None, place.notice: fragments.notice(sentence, wrong=True)}
            except Exception:  # what was given before is not what the page shows now
                logger.exception("a photo could not be looked at")
                return {place.given: None, place.notice: fragments.notice(BROKEN, wrong=True)}
            if given is None:
                return {place.given: None, place.notice: ""}
            again = " Say again whether the people in the photos agree." if values[consent] else ""
            return {
                place.given: given,
                place.notice: fragments.notice(f"{place.label}: a face was found.{again}"),
                consent: False,
                page.forget: gr.Button(visible=True),
            }

        return look

    def make(self, values: Values, request: gr.Request) -> Iterator[Values]:
        """Portraits are wanted: submit, follow, show; whatever happens, the button works again."""
        try:
            yield from self._made(values, owner=request.username)
            return
        except ConsistentIDError as error:
            notice = fragments.notice(said(error), wrong=not isinstance(error, GenerationCancelled))
        except Exception:
            logger.exception("portraits could not be made")
            notice = fragments.notice(BROKEN, wrong=True)
        yield {self.page.stage: notice, **self._idle()}

    def _made(self, values: Values, *, owner: str) -> Iterator[Values]:
        page, controls = self.page, self.page.controls
        draft, form = values[page.draft], controls.read(values)
        if not values[controls.locked]:
            form = replace(form, seed=secrets.randbelow(2**31))
        others = page.others.read(values)
        photos = others.photos({name: given.content for name, given in page.others.given(values).items()})
        kept = {**draft.kept, **others.settings(photos)}
        request = form.request(usual=self.usual, found=draft.caption, kept=kept)
        session = self.sessions.submit(values[page.session], draft, request, others=photos, owner=owner)
        yield {
            page.session: session,
            page.make: gr.Button(interactive=False),
            page.cancel: gr.Button(visible=True),
            controls.seed: form.seed,
        }
        preview = None
        for now in self.sessions.follow(session):
            preview = now.preview or preview
            if not now.job.state.is_final:
                yield {page.stage: fragments.progress(now, preview)}
        session = self.sessions.finished(session, reference=draft.analysis)
        yield {**self._shown(session), page.stage: fragments.notice("Done."), **self._idle(), **self._past(session)}

    def _idle(self) -> Values:
        return {self.page.make: gr.Button(interactive=True), self.page.cancel: gr.Button(visible=False)}

    def cancel(self, session: Session) -> str:
        """The running job is not wanted any more."""
        try:
            self.sessions.cancel(session)
        except ConsistentIDError as error:
            return fragments.notice(said(error), wrong=True)
        return fragments.notice("It stops after the current step.")

    def _shown(self, session: Session) -> Values:
        page, entry = self.page, session.shown
        if entry is None:
            return {page.session: session, page.results: gr.Column(visible=False), page.likeness: ""}
        seeds = [json.loads(path.read_text(encoding="utf-8")) for path in entry.records]
        pictures = [
            (str(path), f"Portrait drawn from number {record['seed'] + record['index']}")
            for path, record in zip(entry.pictures, seeds, strict=True)
        ]
        return {
            page.session: session,
            page.gallery: gr.Gallery(pictures, selected_index=session.picture),
            page.results: gr.Column(visible=True),
            **self._downloads(entry, session.picture),
            page.likeness: "",
        }

    def _downloads(self, entry: Entry, index: int) -> Values:
        return {self.page.picture: str(entry.pictures[index]), self.page.record: str(entry.records[index])}

    def _past(self, session: Session) -> Values:
        pictures = [(str(entry.pictures[0]), entry.request.prompt) for entry in session.entries]
        return {
            self.page.history: gr.Gallery(pictures, selected_index=None),
            self.page.past: gr.Column(visible=bool(pictures)),
        }

    def choose_picture(self, session: Session, event: gr.SelectData) -> Values:
        """Another portrait of the gallery was chosen."""
        entry = session.shown
        if entry is None or session.picture == event.index:
            return {self.page.session: session}
        session = replace(session, picture=event.index)
        return {self.page.session: session, **self._downloads(entry, event.index), self.page.likeness: ""}

    def compare(self, session: Session) -> str:
        """The chosen portrait is to be compared with the photo."""
        try:
            return fragments.compared(self.sessions.compared(session))
        except ConsistentIDError as error:
            return fragments.notice(said(error), wrong=True)

    def restore(self, values: Values, event: gr.SelectData) -> Values:
        """An entry of the history was chosen: its portraits and its settings come back."""
        session = values[self.page.session]
        entry = session.entries[event.index]
        if not entry.is_kept:
            return {self.page.stage: fragments.notice("This entry was deleted meanwhile.", wrong=True)}
        shown = self._shown(replace(session, shown=entry, picture=0))
        return {**self.restoring.take_entry(values, entry), **shown}

    def forget(self, values: Values) -> Values:
        """Everything of this session is to be deleted."""
        page = self.page
        self.sessions.forget(values[page.session])
        for given in (values[page.draft].photo, *page.others.given(values).values()):
            self.sessions.uploads.release(given)
        session = Session.new()
        return {
            **self._shown(session),
            **self._past(session),
            page.gallery: gr.Gallery([]),
            page.stage: fragments.notice("Photos, portraits and history are deleted."),
            page.photo: None,
            page.draft: Draft.new(),
            **{each: None for place in page.others.places.values() for each in (place.photo, place.given)},
            **{place.notice: "" for place in page.others.places.values()},
        }
