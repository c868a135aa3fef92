"""The controls of photos besides the one of the person: places for them, and what each is for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from consistentid.identity.control import PARTS
from consistentid.web.jobs import INTO
from consistentid.web.ui.controls import part_name, photo_input
from consistentid.web.ui.given import Given
from consistentid.web.ui.others import FURTHER, NOBODY, OTHERS, OWN, PLACES, Others

_COMBINATIONS = [
    ("Their average, good photos first", "average"),
    ("Each part from the photo that shows it best", "best"),
    ("All side by side", "concatenate"),
]
_MASKS = [("The face", "face"), ("The head with its hair", "head")]
_BESIDE = ("Second person", "Third person", "Fourth person")


@dataclass(frozen=True, eq=False)
class Place:
    """Where a photo is given.

    Attributes:
        name: of `PLACES`.
        photo: the file.
        given: state, a `Given` or None; each place has its own, so that photos may be given at the same time.
        notice: a sentence about it, of all places near it.
    """

    name: str
    photo: gr.Image
    given: gr.State
    notice: gr.HTML

    @property
    def label(self) -> str:
        """What the page calls it."""
        return _label(self.name)


@dataclass(frozen=True, eq=False)
class OthersControls:
    """What `Others` are read from.

    Attributes:
        places: by name.
        parts: a choice for each part.
        blend_with, blend, beside, clauses, combine, mask, strength: as in `Others`.
    """

    places: Mapping[str, Place]
    parts: Mapping[str, gr.Dropdown]
    blend_with: gr.Dropdown
    blend: gr.Slider
    beside: Sequence[gr.Dropdown]
    clauses: Sequence[gr.Textbox]
    combine: gr.Radio
    mask: gr.Radio
    strength: gr.Slider

    @property
    def simple(self) -> dict[str, gr.Component]:
        """Those that hold one value, by its name."""
        return {name: getattr(self, name) for name in ("blend_with", "blend", "combine", "mask", "strength")}

    @property
    def all(self) -> set[gr.Component]:
        """Every control."""
        return {*self.simple.values(), *self.parts.values(), *self.beside, *self.clauses}

    @property
    def states(self) -> set[gr.State]:
        """Of every place."""
        return {place.given for place in self.places.values()}

    def read(self, values: Mapping[Any, Any]) -> Others:
        """The choices, from what an event gives."""
        return Others(
            **{name: values[control] for name, control in self.simple.items()},
            parts={part: values[control] for part, control in self.parts.items()},
            beside=tuple(values[control] for control in self.beside),
            clauses=tuple(values[control] for control in self.clauses),
        )

    def write(self, others: Others) -> dict[Any, Any]:
        """What an event gives back to show choices."""
        shown: dict[Any, Any] = {control: getattr(others, name) for name, control in self.simple.items()}
        shown[self.blend] = gr.Slider(value=others.blend, visible=others.blend_with != NOBODY)
        shown |= {control: others.parts[part] for part, control in self.parts.items()}
        shown |= dict(zip(self.beside, others.beside, strict=True))
        return shown | dict(zip(self.clauses, others.clauses, strict=True))

    def given(self, values: Mapping[Any, Any]) -> dict[str, Given]:
        """The photos that are there, by the names of their places, from what an event gives."""
        found = {name: values[place.given] for name, place in self.places.items()}
        return {name: given for name, given in found.items() if given is not None}


def others_controls(release: Callable[[Given | None], None]) -> OthersControls:
    """Make them, in groups that are closed.

    Args:
        release: called with the photos of somebody who has left.
    """
    usual, made = Others(), dict[str, Any]()
    with gr.Accordion("Photos of others: their parts, blends, people beside", open=False):
        gr.Markdown("Give up to four photos of other people; below, say what each of them is for.")
        places = _places(OTHERS, release)
        made |= _parts(usual) | _blend(usual) | _beside(usual)
    with gr.Accordion("More photos of the same person", open=False):
        gr.Markdown(
            "Up to three more photos make the likeness surer. A photo that seems to show somebody else is left out."
        )
        places |= _places(FURTHER, release)
        made["combine"] = gr.Radio(_COMBINATIONS, value=usual.combine, label="What the portrait takes from them")
    with gr.Accordion("Put the person into this picture", open=False, elem_id="into-picture"):
        gr.Markdown("The largest face of the picture becomes the person's; the rest of it stays as it is.")
        places |= _places((INTO,), release, height=180)
        made["mask"] = gr.Radio(_MASKS, value=usual.mask, label="What is painted anew")
        made["strength"] = gr.Slider(
            0.05, 1, usual.strength, step=0.05, label="How much it changes: less keeps more of the face that was there"
        )
    return OthersControls(places={name: places[name] for name in PLACES}, **made)


def _places(names: Sequence[str], release: Callable[[Given | None], None], *, height: int = 150) -> dict[str, Place]:
    """Places side by side, and the sentence below them."""
    with gr.Row(elem_classes="places"):
        photos = {name: photo_input(_label(name), height=height, elem_id=name.replace(" ", "-")) for name in names}
    notice = gr.HTML()
    return {name: Place(name, photo, gr.State(None, delete_callback=release), notice) for name, photo in photos.items()}


def _label(name: str) -> str:
    return "The picture" if name == INTO else name.capitalize()


def _parts(usual: Others) -> dict[str, Any]:
    gr.Markdown("**Whose parts the portrait gets**")
    with gr.Row(elem_classes="pairs"):
        return {
            "parts": {
                part: gr.Dropdown(
                    [OWN, *OTHERS], value=usual.parts[part], label=f"{part_name(part)} from", min_width=130,
                    elem_id=f"{part}-from", filterable=False,
                )
                for part in PARTS
            }
        }  # fmt: skip


def _blend(usual: Others) -> dict[str, Any]:
    gr.Markdown("**A mixture of two people**")
    whom = gr.Dropdown(
        [NOBODY, *OTHERS], value=usual.blend_with, label="Blend with", elem_id="blend-with", filterable=False
    )
    share = gr.Slider(0, 1, usual.blend, step=0.05, label="Share of the other person", visible=False)
    whom.change(
        lambda name: gr.Slider(visible=name != NOBODY), whom, share, api_visibility="private", show_progress="hidden"
    )
    return {"blend_with": whom, "blend": share}


def _beside(usual: Others) -> dict[str, Any]:
    gr.Markdown(
        "**Several people in one picture**, side by side, from left to right. What you say of each of them is added to "
        "what the portrait should show."
    )
    clauses = [gr.Textbox("", label="Said of the person in the photo", placeholder="a smiling woman")]
    beside = []
    for label, name in zip(_BESIDE, usual.beside, strict=True):
        with gr.Row(elem_classes="pairs"):
            beside.append(
                gr.Dropdown(
                    [NOBODY, *OTHERS], value=name, label=label, min_width=130, filterable=False,
                    elem_id=label.lower().replace(" ", "-"),
                )
            )  # fmt: skip
            said_of = f"Said of the {label.lower()}"
            clauses.append(gr.Textbox("", label=said_of, placeholder="a man with a hat", min_width=130))
    return {"beside": beside, "clauses": clauses}
