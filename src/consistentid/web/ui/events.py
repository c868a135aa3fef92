"""What happens when something on the page is used: an event in, new values of components out."""

import json
import logging
import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr

from consistentid.errors import ConsistentIDError
from consistentid.faces.regions import REGION_NAMES
from consistentid.generation.portrait import read_settings
from consistentid.web.jobs import JobState
from consistentid.web.ui import fragments
from consistentid.web.ui.form import Form, settings_of
from consistentid.web.ui.page import Page
from consistentid.web.ui.presets import Preset
from consistentid.web.ui.session import Entry, Session, Sessions, said

logger = logging.getLogger(__name__)

Values = dict[Any, Any]


class Events:
    """Answers of the page.

    Args:
        page: its components.
        sessions: what a session can do.
        usual: the model's values.
    """

    def __init__(self, page: Page, sessions: Sessions, *, usual: Form) -> None:
        self.page, self.sessions, self.usual = page, sessions, usual

    def connect(self, blocks: gr.Blocks) -> None:
        """Tie the answers to the components."""
        page, controls = self.page, self.page.controls
        private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        about_photo = [
            page.session, page.photo_notice, page.parts, page.found, page.faces, controls.caption, page.likeness,
            *controls.uses.values(),
        ]  # fmt: skip
        page.photo.change(self.look_at, {page.photo, page.session}, about_photo, **private)
        page.faces.input(self.choose_face, {page.faces, page.session}, about_photo, **private)
        for preset, button in page.presets:
            button.click(lambda preset=preset: self.take_preset(preset), None, [controls.prompt], **private)
        form = [page.session, page.stage, *controls.all]
        page.reuse.upload(self.take_settings, {page.reuse, page.session, *controls.all}, form, **private)
        page.usual.click(self.take_usual, {page.session, *controls.all}, form, **private)
        shown = [page.session, page.gallery, page.results, page.picture, page.record, page.likeness]
        making = [*shown, page.stage, page.make, page.cancel, page.history, page.past, controls.seed]
        page.make.click(self.make, {page.session, *controls.all}, making, **private)
        controls.prompt.submit(self.make, {page.session, *controls.all}, making, **private)
        page.cancel.click(self.cancel, page.session, [page.stage], **private)
        page.gallery.select(self.choose_picture, page.session, shown, **private)
        page.compare.click(self.compare, page.session, [page.likeness], **private)
        page.history.select(self.restore, {page.session, *controls.all}, list({*shown, *form}), **private)
        page.forget.click(self.forget, page.session, [*making, page.photo], **private)

    def look_at(self, values: Values) -> Values:
        """A photo was given or taken away."""
        path, session = values[self.page.photo], values[self.page.session]
        if path is None:
            return self._without_photo(session, "Drop a JPEG, PNG or WebP here. It is deleted when you leave.")
        return self._looked_at(session, lambda: path.read_bytes(), face=None)

    def choose_face(self, values: Values) -> Values:
        """Another face of the same photo was chosen."""
        session, face = values[self.page.session], values[self.page.faces]
        return self._looked_at(session, lambda: session.photo, face=face)

    def _looked_at(self, session: Session, photo: Callable[[], bytes], *, face: int | None) -> Values:
        page = self.page
        try:
            session = self.sessions.look_at(session, photo(), face=face)
            boxes = self.sessions.boxes(session)
        except Exception as error:
            return self._without_photo(session, _told(error), wrong=True)
        assert session.analysis is not None
        visible = session.analysis.region_masks
        choices = [(f"Face {number + 1}", number) for number in range(len(boxes))]
        chosen = next((number for number, box in enumerate(boxes) if box == session.analysis.box), 0)
        hidden = [name for name in REGION_NAMES if name not in visible]
        sentence = "A face was found." if len(boxes) == 1 else f"{len(boxes)} faces were found."
        if hidden:
            sentence += f" Not visible, so left to the words: {', '.join(hidden)}."
        return {
            page.session: session,
            page.photo_notice: fragments.notice(sentence),
            page.parts: gr.Column(visible=True),
            page.found: fragments.found(session.analysis, boxes),
            page.faces: gr.Radio(choices=choices, value=chosen, visible=len(boxes) > 1),
            page.controls.caption: session.caption or "",
            page.likeness: "",
            **{control: gr.Checkbox(interactive=name in visible) for name, control in page.controls.uses.items()},
        }

    def _without_photo(self, session: Session, sentence: str, *, wrong: bool = False) -> Values:
        session = replace(session, photo=None, analysis=None, face=None)
        notice = fragments.notice(sentence, wrong=wrong)
        return {
            self.page.session: session,
            self.page.photo_notice: notice,
            self.page.parts: gr.Column(visible=False),
        }

    def take_preset(self, preset: Preset) -> str:
        """An example was chosen."""
        return preset.prompt

    def take_settings(self, values: Values) -> Values:
        """A portrait was given whose settings are wanted."""
        page, controls = self.page, self.page.controls
        try:
            record = read_settings(values[page.reuse])
        except Exception as error:
            return {page.stage: fragments.notice(_told(error), wrong=True)}
        form, kept = controls.read(values).restored(record.prompt, settings_of(record))
        also = f" Also kept from it: {', '.join(sorted(kept))}." if kept else ""
        return {
            page.session: replace(values[page.session], kept=kept),
            page.stage: fragments.notice(f"The settings of that portrait are set; its photo is not in it.{also}"),
            **controls.write(form),
            controls.locked: True,
        }

    def take_usual(self, values: Values) -> Values:
        """The usual settings are wanted back; the prompt stays."""
        page, controls = self.page, self.page.controls
        session = replace(values[page.session], kept={})
        form = replace(self.usual, prompt=values[controls.prompt], caption=session.caption or "")
        return {
            page.session: session,
            page.stage: fragments.notice("The usual settings are set."),
            **controls.write(form),
            controls.locked: False,
        }

    def make(self, values: Values) -> Iterator[Values]:
        """Portraits are wanted: submit, follow, show."""
        page, controls, session = self.page, self.page.controls, values[self.page.session]
        idle = {page.make: gr.Button(interactive=True), page.cancel: gr.Button(visible=False)}
        try:
            form = controls.read(values)
            if not values[controls.locked]:
                form = replace(form, seed=secrets.randbelow(2**31))
            request = form.request(usual=self.usual, found=session.caption, kept=session.kept)
            session = self.sessions.submit(session, request)
            yield {
                page.session: session,
                page.make: gr.Button(interactive=False),
                page.cancel: gr.Button(visible=True),
                controls.seed: form.seed,
            }
            preview, now = None, None
            for now in self.sessions.follow(session):
                preview = now.preview or preview
                if not now.job.state.is_final:
                    yield {page.stage: fragments.progress(now, preview)}
            if now is None or now.job.state is JobState.CANCELLED:
                yield {page.session: replace(session, job=None), page.stage: fragments.notice("Cancelled."), **idle}
                return
            session = self.sessions.finished(session, now.job)
        except Exception as error:
            wrong = fragments.notice(_told(error), wrong=True)
            yield {page.session: replace(session, job=None), page.stage: wrong, **idle}
            return
        yield {**self._shown(session), page.stage: fragments.notice("Done."), **idle, **self._past(session)}

    def cancel(self, session: Session) -> str:
        """The running job is not wanted any more."""
        try:
            self.sessions.cancel(session)
        except Exception as error:
            return fragments.notice(_told(error), wrong=True)
        return fragments.notice("Cancelled after the current step.")

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
        return {self.page.history: gr.Gallery(pictures, selected_index=None), self.page.past: gr.Column(visible=bool(pictures))}

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
        except Exception as error:
            return fragments.notice(_told(error), wrong=True)

    def restore(self, values: Values, event: gr.SelectData) -> Values:
        """An entry of the history was chosen: its portraits and its settings come back."""
        page, controls, session = self.page, self.page.controls, values[self.page.session]
        entry = session.entries[event.index]
        form, kept = replace(self.usual).restored(entry.request.prompt, entry.request.settings)
        if entry.request.caption is None:
            form = replace(form, caption=session.caption or "")
        session = replace(session, kept=kept, shown=entry, picture=0)
        return {
            **controls.write(form),
            controls.locked: True,
            page.stage: fragments.notice("The settings of this entry are back."),
            **self._shown(session),
        }

    def forget(self, session: Session) -> Values:
        """Everything of this session is to be deleted."""
        self.sessions.forget(session)
        session = Session.new()
        return {
            **self._shown(session),
            **self._past(session),
            self.page.gallery: gr.Gallery([]),
            self.page.stage: fragments.notice("Photo, portraits and history are deleted."),
            self.page.photo: None,
        }


def _told(error: Exception) -> str:
    if not isinstance(error, ConsistentIDError):
        logger.exception("the page failed")
    return said(error)
