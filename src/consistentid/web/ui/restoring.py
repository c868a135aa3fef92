"""Settings that come back: of a portrait that is given, of an entry of the history, the usual ones."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from consistentid.errors import ConsistentIDError
from consistentid.generation.donors import BESIDE, Donors
from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.places import MOST_AUTOMATIC
from consistentid.generation.presets import PRESETS
from consistentid.generation.request import GenerationRequest
from consistentid.generation.resolve import resolved_request
from consistentid.generation.settings import GenerationSettings, PortraitSettings
from consistentid.web.ui import fragments
from consistentid.web.ui.form import Form, settings_of
from consistentid.web.ui.others import Others
from consistentid.web.ui.page import Page
from consistentid.web.ui.session import Entry, Sessions, said

Values = dict[Any, Any]


class Restoring:
    """Answers of the page that set its controls.

    Args:
        page: its components.
        sessions: what a session can do.
        usual: the model's values.
    """

    def __init__(self, page: Page, sessions: Sessions, *, usual: Form) -> None:
        self.page, self.sessions, self.usual = page, sessions, usual

    def take_settings(self, values: Values, request: gr.Request) -> Values:
        """A portrait was given whose settings are wanted."""
        page = self.page
        try:
            record = self.sessions.settings_in(Path(values[page.reuse]), owner=request.username)
        except ConsistentIDError as error:
            return {page.stage: fragments.notice(said(error), wrong=True)}
        form, kept = self._usual(values).restored(record.prompt, settings_of(record))
        kept = _unusual(kept, record, self.sessions.service.generator)
        others, sentence = self._others(values, record)
        also = f"Also kept from it: {', '.join(sorted(kept))}." if kept else ""
        said_of_it = ("The settings of that portrait are set; its photo is not in it.", sentence, also)
        return {page.reuse: None, **self._set(values, form, others, kept=kept, sentences=said_of_it)}

    def take_entry(self, values: Values, entry: Entry) -> Values:
        """An entry of the history was chosen."""
        draft, request = values[self.page.draft], entry.request
        form, kept = self._usual(values).restored(request.prompt, request.settings)
        if request.caption is None:
            form = replace(form, caption=draft.caption or "")
        record = PortraitSettings.model_validate_json(entry.records[0].read_text(encoding="utf-8"))
        others, sentence = self._others(values, record)
        sentences = ("The settings of this entry are back.", sentence)
        return self._set(values, form, others.with_picture(request), kept=kept, sentences=sentences)

    def take_usual(self, values: Values) -> Values:
        """The usual settings are wanted back; the prompt and the photos stay."""
        prompt, caption = self.page.controls.read(values).prompt, values[self.page.draft].caption or ""
        form = replace(self._usual(values), prompt=prompt, caption=caption)
        usual = self._set(values, form, Others(), kept={}, sentences=("The usual settings are set.",))
        return {**usual, self.page.controls.locked: False}

    def _usual(self, values: Values) -> Form:
        """The usual settings, with what was said of consent."""
        return replace(self.usual, consent=self.page.controls.read(values).consent)

    def _others(self, values: Values, record: PortraitSettings) -> tuple[Others, str]:
        others = self.page.others
        given = {name: given.sha256 for name, given in others.given(values).items()}
        return others.read(values).restored(record, given=given)

    def _set(
        self, values: Values, form: Form, others: Others, *, kept: Mapping[str, object], sentences: tuple[str, ...]
    ) -> Values:
        page = self.page
        return {
            page.draft: replace(values[page.draft], kept=dict(kept)),
            page.stage: fragments.notice(" ".join(filter(None, sentences))),
            **page.controls.write(form),
            **page.others.write(others),
            page.controls.locked: True,
        }


def _unusual(kept: Mapping[str, object], record: PortraitSettings, generator: PortraitGenerator) -> dict[str, object]:
    """Without what the model does by itself for so many people, which would stand in the way of more or fewer."""
    beside = [donor for donor in record.donors if donor.role == BESIDE][: MOST_AUTOMATIC - 1]
    config = generator.adapter.config
    usual: GenerationSettings = resolved_request(
        GenerationRequest(b"", record.prompt, donors=Donors(beside=(b"",) * len(beside))),
        preset=PRESETS[config.base], config=config, pipeline=generator.pipeline,
    )  # fmt: skip
    return {name: value for name, value in kept.items() if value != getattr(usual, name)}
