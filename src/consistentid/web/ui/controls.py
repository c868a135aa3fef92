"""The controls of the page, in words that need no knowledge of diffusion."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from consistentid.faces.regions import REGION_NAMES
from consistentid.identity.control import IDENTITY, MAX_WEIGHT
from consistentid.web.config import ServerConfig
from consistentid.web.ui.form import Form


def photo_input() -> gr.Image:
    """Takes a photo and hands the file on as it came: the service decides what may be decoded."""
    photo = gr.Image(
        label="Photo", sources=["upload", "clipboard"], type="filepath", height=200, buttons=[],
        elem_id="photo",
    )  # fmt: skip
    photo.preprocess = _as_it_came
    return photo


def _as_it_came(payload: Any) -> Path | None:
    return None if payload is None or payload.path is None else Path(payload.path)


@dataclass(frozen=True, eq=False)
class Controls:
    """What the form is read from.

    Attributes:
        prompt, negative_prompt, caption, num_images, steps, guidance, identity_scale, text_share, seed, consent: as in
            `Form`.
        locked: whether the next portraits have the same number.
        uses: a toggle for each region.
        weights: a slider for each part.
    """

    prompt: gr.Textbox
    negative_prompt: gr.Textbox
    caption: gr.Textbox
    num_images: gr.Slider
    steps: gr.Slider
    guidance: gr.Slider
    identity_scale: gr.Slider
    text_share: gr.Slider
    seed: gr.Number
    consent: gr.Checkbox
    locked: gr.Checkbox
    uses: Mapping[str, gr.Checkbox]
    weights: Mapping[str, gr.Slider]

    @property
    def simple(self) -> dict[str, gr.Component]:
        """Those that hold one value of the form, by its name."""
        return {name: value for name, value in vars(self).items() if name not in {"locked", "uses", "weights"}}

    @property
    def all(self) -> set[gr.Component]:
        """Every control."""
        return {*self.simple.values(), self.locked, *self.uses.values(), *self.weights.values()}

    def read(self, values: Mapping[Any, Any]) -> Form:
        """The form, from what an event gives."""
        simple = {name: values[control] for name, control in self.simple.items()}
        for name in ("seed", "num_images", "steps"):
            simple[name] = int(simple[name] or 0)
        used = tuple(name for name, control in self.uses.items() if values[control])
        return Form(**simple, used=used, weights={name: values[control] for name, control in self.weights.items()})

    def write(self, form: Form) -> dict[Any, Any]:
        """What an event gives back to show a form."""
        shown: dict[Any, Any] = {control: getattr(form, name) for name, control in self.simple.items()}
        shown |= {control: name in form.used for name, control in self.uses.items()}
        return shown | {control: form.weights[name] for name, control in self.weights.items()}


def prompt_box() -> gr.Textbox:
    """What the portrait should show."""
    return gr.Textbox(
        label="What should the portrait show?",
        placeholder="a portrait photo of a smiling woman, blue background",
        lines=2,
    )


def part_controls() -> tuple[gr.Textbox, dict[str, gr.Checkbox], dict[str, gr.Slider]]:
    """Caption, toggles and weights of what the photo gives."""
    uses, weights = {}, {}
    gr.Markdown("**What the portrait takes from the photo** (0: left to the words, 1: as usual, 1.5: more)")
    for name in REGION_NAMES:
        with gr.Row(elem_classes="region"):
            uses[name] = gr.Checkbox(True, label=name.capitalize(), scale=1, min_width=84, elem_id=f"use-{name}")
            weights[name] = gr.Slider(
                0, MAX_WEIGHT, 1, step=0.05, label=f"How strongly: {name}", scale=3, min_width=150,
                elem_id=f"weight-{name}",
            )  # fmt: skip
    weights[IDENTITY] = gr.Slider(0, MAX_WEIGHT, 1, step=0.05, label="How strongly: the person overall")
    caption = gr.Textbox(label="Description of the face (edit it as you like)", lines=3, elem_id="caption")
    return caption, uses, weights


def sliders(form: Form, config: ServerConfig) -> dict[str, Any]:
    """The other settings, at the model's usual values."""
    made = {
        "num_images": gr.Slider(1, min(config.max_images, 8), 1, step=1, label="How many portraits"),
    }
    with gr.Accordion("More settings", open=False):
        made |= {
            "identity_scale": gr.Slider(
                0, 2, form.identity_scale, step=0.05, label="Likeness: how strongly the photo counts at all"
            ),
            "guidance": gr.Slider(
                0, 15, form.guidance, step=0.1, label="Words: how strictly the portrait follows them"
            ),
            "steps": gr.Slider(
                1, config.max_steps, form.steps, step=1, label="Care: steps of drawing; more take longer"
            ),
            "text_share": gr.Slider(
                0,
                1,
                form.text_share,
                step=0.01,
                label="Freedom at the start: share of steps before regions act",
            ),
            "negative_prompt": gr.Textbox(label="What the portrait should not show"),
        }
    with gr.Row():
        made["seed"] = gr.Number(0, label="Number that the portrait is drawn from", precision=0, minimum=0)
        made["locked"] = gr.Checkbox(False, label="Keep this number", elem_id="locked")
    return made
