"""The controls of the page, in words that need no knowledge of diffusion."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from consistentid.faces.regions import REGION_NAMES
from consistentid.identity.control import IDENTITY, MAX_WEIGHT, PARTS
from consistentid.web.config import ServerConfig
from consistentid.web.ui.form import BY_PART, Form

_WORDS = {"face": "freckled", "ears": "with earrings", "eyes": "closed", "nose": "small", "mouth": "laughing"}


def photo_input(label: str = "Photo", *, height: int = 200, elem_id: str = "photo") -> gr.Image:
    """Takes a photo and hands the file on as it came: the service decides what may be decoded.

    An event that has it as an output must give it a value: Gradio makes what is left out anew, without `preprocess`.
    """
    photo = gr.Image(
        label=label, sources=["upload", "clipboard"], type="filepath", height=height, buttons=[], min_width=120,
        elem_id=elem_id, elem_classes="photo",
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
        words: a text for each region.
        starts, ends: a text for each part.
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
    words: Mapping[str, gr.Textbox]
    starts: Mapping[str, gr.Textbox]
    ends: Mapping[str, gr.Textbox]

    @property
    def simple(self) -> dict[str, gr.Component]:
        """Those that hold one value of the form, by its name."""
        grouped = {"locked", "uses", *BY_PART}
        return {name: value for name, value in vars(self).items() if name not in grouped}

    @property
    def all(self) -> set[gr.Component]:
        """Every control."""
        by_part = {control for name in BY_PART for control in getattr(self, name).values()}
        return {*self.simple.values(), self.locked, *self.uses.values(), *by_part}

    def read(self, values: Mapping[Any, Any]) -> Form:
        """The form, from what an event gives."""
        simple = {name: values[control] for name, control in self.simple.items()}
        for name in ("seed", "num_images", "steps"):
            simple[name] = int(simple[name] or 0)
        used = tuple(name for name, control in self.uses.items() if values[control])
        by_part: dict[str, Any] = {
            name: {part: values[control] for part, control in getattr(self, name).items()} for name in BY_PART
        }
        return Form(**simple, used=used, **by_part)

    def write(self, form: Form) -> dict[Any, Any]:
        """What an event gives back to show a form."""
        shown: dict[Any, Any] = {control: getattr(form, name) for name, control in self.simple.items()}
        shown |= {control: name in form.used for name, control in self.uses.items()}
        for name in BY_PART:
            shown |= {control: getattr(form, name)[part] for part, control in getattr(self, name).items()}
        return shown


def prompt_box() -> gr.Textbox:
    """What the portrait should show."""
    return gr.Textbox(
        label="What should the portrait show?",
        placeholder="a portrait photo of a smiling woman, blue background",
        lines=2,
    )


def part_controls() -> dict[str, Any]:
    """Caption, toggles and weights of what the photo gives; words and times."""
    made: dict[str, Any] = {"uses": {}, "weights": {}}
    gr.Markdown("**What the portrait takes from the photo** (0: left to the words, 1: as usual, 1.5: more)")
    for name in REGION_NAMES:
        with gr.Row(elem_classes="region"):
            made["uses"][name] = gr.Checkbox(
                True, label=name.capitalize(), scale=1, min_width=84, elem_id=f"use-{name}"
            )
            made["weights"][name] = gr.Slider(
                0, MAX_WEIGHT, 1, step=0.05, label=f"How strongly: {name}", scale=3, min_width=150,
                elem_id=f"weight-{name}",
            )  # fmt: skip
    made["weights"][IDENTITY] = gr.Slider(0, MAX_WEIGHT, 1, step=0.05, label="How strongly: the person overall")
    made["caption"] = gr.Textbox(label="Description of the face (edit it as you like)", lines=3, elem_id="caption")
    return made | _words_and_times()


def _words_and_times() -> dict[str, dict[str, gr.Component]]:
    made: dict[str, dict[str, gr.Component]] = {"words": {}, "starts": {}, "ends": {}}
    with gr.Accordion("Words instead of a part, and when parts act", open=False):
        gr.Markdown(
            "What you say of a part takes the place of what the photo shows; the photo then counts little for it. "
            "“From” and “to” are shares of the drawing: 0 is its beginning, 0.5 its middle, 1 its end."
        )
        for part in PARTS:
            with gr.Row(elem_classes=["region", "words"]):
                if part in _WORDS:
                    made["words"][part] = gr.Textbox(
                        "", label=f"{part.capitalize()} in words", placeholder=_WORDS[part], scale=3, min_width=110
                    )
                for name, end in (("starts", "from"), ("ends", "to")):
                    made[name][part] = gr.Textbox(
                        "", label=f"{part_name(part)} {end}", placeholder="usual", scale=2, min_width=76
                    )
    return made


def part_name(part: str) -> str:
    """How the page calls a part."""
    return "Person overall" if part == IDENTITY else part.capitalize()


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
