"""Choices about photos of others -> roles and settings -> choices."""

from dataclasses import replace
from typing import Any

import pytest

from consistentid.errors import InvalidSettings
from consistentid.generation.settings import DonorRecord, PortraitSettings
from consistentid.web.ui.others import NOBODY, OTHERS, OWN, Others

USUAL = Others()
ONE, TWO, THREE, _ = OTHERS


def recorded(donors: list[tuple[str, str]], **values: Any) -> PortraitSettings:
    """The record of a portrait with photos of these roles and hashes."""
    return PortraitSettings(
        prompt="a person", photo_sha256="own", analysis_sha256="", weights_sha256="", dtype="float32", device="cpu",
        threads=1, **values,
        donors=tuple(DonorRecord(role=role, photo=None, photo_sha256=sha, analysis_sha256="") for role, sha in donors),
    )  # fmt: skip


def test_nothing_chosen_asks_for_nothing() -> None:
    photos = USUAL.photos({ONE: b"a"})
    assert (photos, USUAL.settings(photos)) == ([], {})


def test_choices_reach_roles_and_settings() -> None:
    others = replace(
        USUAL,
        parts={**USUAL.parts, "mouth": ONE},
        blend_with=TWO,
        blend=0.3,
        beside=(NOBODY, TWO, ONE),
        clauses=(" a woman ", "said of nobody", "", "a man"),
        combine="best",
        strength=0.5,
    )
    photos = others.photos({ONE: b"a", TWO: b"b", "further photo 2": b"c", "into": b"d"})
    assert photos == [
        ("mouth", b"a"), ("blend", b"b"), ("same", b"c"), ("beside", b"b"), ("beside", b"a"), ("into", b"d"),
    ]  # fmt: skip
    assert others.settings(photos) == {
        "blend": 0.3, "combine": "best", "clauses": ("a woman", "a person", "a man"), "strength": 0.5,
    }  # fmt: skip


def test_a_photo_that_is_not_there_is_refused_in_a_sentence() -> None:
    for others, sentence in (
        (replace(USUAL, parts={**USUAL.parts, "identity": TWO}), r"other photo 2 is chosen \(the person overall\)"),
        (replace(USUAL, blend_with=ONE), "other photo 1 is chosen .to blend with."),
    ):
        with pytest.raises(InvalidSettings, match=sentence):
            others.photos({})


def test_a_record_gives_choices_back_and_names_the_photos_it_has_not() -> None:
    donors = [("eyes", "anna"), ("mouth", "anna"), ("blend", "ben"), ("same", "me"), ("beside", "carl")]
    record = recorded(donors, blend=0.2, combine="best", clauses=("a person", "a man"))
    others, sentence = USUAL.restored(record, given={TWO: "ben", ONE: "nobody of these"})
    assert others.blend_with == TWO  # where the photo is already
    assert (others.parts["eyes"], others.parts["mouth"], others.parts["nose"]) == (THREE, THREE, OWN)
    assert others.beside == ("other photo 4", NOBODY, NOBODY)
    assert (others.blend, others.combine, others.clauses[:2]) == (0.2, "best", ("", "a man"))
    assert sentence == (
        "Give again: other photo 3 (eyes, mouth), other photo 4 (a person beside), 1 further of the person."
    )


def test_photos_without_a_place_are_counted() -> None:
    others, sentence = USUAL.restored(recorded([("beside", name) for name in "abcde"]), given={})
    assert NOBODY not in others.beside
    assert sentence.endswith("This page has no place for: 2 more photos.")


def test_photos_that_a_record_knows_nothing_of_are_named() -> None:
    given = {"further photo 1": "me", "into": "a group", ONE: "anna"}
    assert USUAL.restored(recorded([]), given=given) == (
        USUAL,
        "Take away: further photos that it was made without, the picture that the person would be put into.",
    )
    assert USUAL.restored(recorded([], task="inpaint"), given={})[1] == (
        "Give again: the picture that the person was put into."
    )
