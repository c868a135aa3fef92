"""The page: where everything stands."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from consistentid.web.config import ServerConfig
from consistentid.web.ui import fragments
from consistentid.web.ui.controls import Controls, part_controls, photo_input, prompt_box, sliders
from consistentid.web.ui.form import Form
from consistentid.web.ui.given import Given
from consistentid.web.ui.others_controls import OthersControls, others_controls
from consistentid.web.ui.presets import Preset, presets
from consistentid.web.ui.session import Draft, Session

PHOTO_WANTED = "Drop a JPEG, PNG or WebP here. Photo and portraits are deleted within an hour after you leave."


@dataclass(frozen=True, eq=False)
class Page:
    """The components, and the session that belongs to a browser tab.

    Attributes:
        session, draft: states, a `Session` and a `Draft`. Whoever waits for portraits writes only the first, so that
            the photo may be changed meanwhile.
        controls: what the form is read from.
        others: places for photos besides, and what they are for.
        photo, photo_notice, found, faces, parts: the photo, a sentence about it, the drawing, the choice of a face, and
            the group that appears with them.
        presets: a button for each preset.
        reuse, usual: a portrait whose settings are taken over; back to the usual ones.
        make, cancel, stage: begin, stop, and what goes on.
        gallery, picture, record: portraits, and the downloads of the chosen one.
        compare, likeness: ask for and show the comparison with the photo.
        history, forget: what was made before; delete everything.
    """

    session: gr.State
    draft: gr.State
    controls: Controls
    others: OthersControls
    photo: gr.Image
    photo_notice: gr.HTML
    found: gr.HTML
    faces: gr.Radio
    parts: gr.Column
    presets: list[tuple[Preset, gr.Button]]
    reuse: gr.File
    usual: gr.Button
    make: gr.Button
    cancel: gr.Button
    stage: gr.HTML
    gallery: gr.Gallery
    results: gr.Column
    picture: gr.DownloadButton
    record: gr.DownloadButton
    compare: gr.Button
    likeness: gr.HTML
    history: gr.Gallery
    past: gr.Column
    forget: gr.Button


def draw_page(
    form: Form, config: ServerConfig, *, forget: Callable[[Session], None], release: Callable[[Given | None], None]
) -> Page:
    """Make every component; call it inside `gr.Blocks`.

    Args:
        form: the model's usual values.
        config: has the limits.
        forget: called with the session of somebody who has left.
        release: likewise with every photo.
    """
    made: dict[str, Any] = {
        "session": gr.State(Session.new, delete_callback=forget),
        "draft": gr.State(Draft.new, delete_callback=lambda draft: release(draft.photo)),
    }
    gr.Markdown(
        "# ConsistentID\nPortraits of the person in a photo, that follow your words. Nothing is sent elsewhere.",
        elem_id="title",
    )
    with gr.Row(elem_id="columns"):
        with gr.Column(scale=1, min_width=320):
            made |= _photo()
            made["others"] = others_controls(release)
        with gr.Column(scale=1, min_width=320):
            made |= _wish(form, config)
            made |= _results()
    values = {**made.pop("part_controls"), **made.pop("sliders")}
    controls = Controls(prompt=made.pop("prompt"), consent=made.pop("consent"), **values)
    return Page(controls=controls, **made)


def _photo() -> dict[str, Any]:
    made: dict[str, Any] = {
        "photo": photo_input(),
        "photo_notice": gr.HTML(fragments.notice(PHOTO_WANTED)),
    }
    with gr.Column(visible=False) as made["parts"]:
        made["found"] = gr.HTML()
        made["faces"] = gr.Radio(label="Whose portrait? The numbers are in the picture above.", visible=False)
        made["consent"] = gr.Checkbox(
            False, label="The people in the photos agree to this use (written into every file)", elem_id="consent"
        )
        made["part_controls"] = part_controls()
    return made


def _wish(form: Form, config: ServerConfig) -> dict[str, Any]:
    made: dict[str, Any] = {"prompt": prompt_box(), "presets": []}
    with gr.Row(elem_id="presets"):
        for preset in presets():
            made["presets"].append((preset, gr.Button(preset.name, icon=str(preset.path), min_width=92, size="sm")))
    made["sliders"] = sliders(form, config)
    with gr.Accordion("Same settings as a portrait", open=False):
        made["reuse"] = gr.File(
            label="A PNG that was made here or by consistentid", file_types=[".png"], height=120, elem_id="reuse"
        )
        made["usual"] = gr.Button("Back to the usual settings", size="sm")
    with gr.Row():
        made["make"] = gr.Button("Make portraits", variant="primary", elem_id="make")
        made["cancel"] = gr.Button("Cancel", variant="stop", visible=False, elem_id="cancel")
    return made


def _results() -> dict[str, Any]:
    made: dict[str, Any] = {"stage": gr.HTML(fragments.EMPTY, elem_id="stage")}
    with gr.Column(visible=False) as made["results"]:
        made["gallery"] = gr.Gallery(
            label="Portraits", columns=2, object_fit="contain", height=360, buttons=["fullscreen"], interactive=False,
            elem_id="portraits",
        )  # fmt: skip
        with gr.Row():
            made["picture"] = gr.DownloadButton("Download picture", size="sm", elem_id="download-picture")
            made["record"] = gr.DownloadButton("Download settings", size="sm", elem_id="download-settings")
            made["compare"] = gr.Button("Compare with the photo", size="sm", elem_id="compare")
        made["likeness"] = gr.HTML(elem_id="likeness")
    with gr.Column(visible=False) as made["past"]:
        made["history"] = gr.Gallery(
            label="Made in this session: choose one to get its settings back", columns=6, height=130, fit_columns=False,
            object_fit="cover", allow_preview=False, buttons=[], interactive=False, elem_id="history",
        )  # fmt: skip
    made["forget"] = gr.Button("Delete everything of this session", size="sm", variant="stop", visible=False)
    return made
