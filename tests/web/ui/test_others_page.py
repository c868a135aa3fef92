"""Photos of others, words and times on the page, in a real browser."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image
from tests.web.ui.steps import give, make, quick, record

from consistentid.generation.portrait import read_settings

if TYPE_CHECKING:
    from playwright.sync_api import Page

OpenPage = Callable[..., "Page"]
pytestmark = [pytest.mark.enable_socket, pytest.mark.slow]
OTHERS, FURTHER = "Photos of others: their parts, blends, people beside", "More photos of the same person"
INTO, WORDS = "Put the person into this picture", "Words instead of a part, and when parts act"


@pytest.fixture
def people(photo: bytes, other_photo: bytes, tmp_path: Path) -> tuple[Path, Path]:
    """Photos of a woman and of a man."""
    paths = tmp_path / "woman.jpg", tmp_path / "man.jpg"
    for path, content in zip(paths, (photo, other_photo), strict=True):
        path.write_bytes(content)
    return paths


def give_other(page: "Page", place: str, path: Path) -> None:
    give(page, path, place=place.lower().replace(" ", "-"))
    page.get_by_text(f"{place}: a face was found.").wait_for()


def choose(page: "Page", label: str, choice: str) -> None:
    page.get_by_label(label, exact=True).click()
    page.get_by_role("option", name=choice).click()
    page.get_by_role("option").first.wait_for(state="detached")


def ready(page: "Page", path: Path) -> None:
    give(page, path)
    page.get_by_text("A face was found.", exact=True).wait_for()
    quick(page)


def stored(app_store: Path) -> list[Path]:
    return list((app_store / "app").rglob("*.jpg"))


def test_parts_blends_and_people_beside(
    open_page: OpenPage, people: tuple[Path, Path], app_store: Path, tmp_path: Path
) -> None:
    woman, man = people
    page = open_page()
    ready(page, woman)
    page.get_by_role("button", name=OTHERS).click()
    choose(page, "Mouth from", "other photo 1")
    page.get_by_role("button", name="Make portraits").click()
    page.get_by_text("Other photo 1 is chosen (mouth), but it is not there, or cannot be used").wait_for()
    give_other(page, "Other photo 1", man)
    choose(page, "Blend with", "other photo 1")
    page.get_by_label("number input for Share of the other person").fill("0.3")
    make(page)
    mixed = record(page)
    assert [donor["role"] for donor in mixed["donors"]] == ["mouth", "blend"]
    assert mixed["blend"] == 0.3
    choose(page, "Mouth from", "the photo")
    choose(page, "Blend with", "nobody")
    choose(page, "Second person", "other photo 1")
    page.get_by_label("Said of the second person").fill("a man in a suit")
    make(page)
    page.wait_for_function("document.querySelectorAll('#history .thumbnail-item').length == 2")
    beside = record(page)
    assert [donor["role"] for donor in beside["donors"]] == ["beside"]
    assert beside["clauses"] == ["a person", "a man in a suit"]
    assert (beside["size"], len(beside["places"])) == ([240, 128], 2)
    with page.expect_download() as download:
        page.locator("#download-picture").click()
    download.value.save_as(tmp_path / "portrait.png")
    page.locator("#history .thumbnail-item").nth(1).click()
    page.get_by_text("The settings of this entry are back.", exact=True).wait_for()  # no photo is missing
    assert page.get_by_label("Mouth from").input_value() == "other photo 1"
    make(page)
    assert record(page)["donors"] == mixed["donors"]
    assert {path.name for path in stored(app_store)} == {"woman.jpg", "man.jpg"}
    page.get_by_role("button", name=WORDS).click()
    page.get_by_label("Mouth in words").fill("laughing")
    page.get_by_role("button", name="Delete everything of this session").click()
    page.get_by_text("Photos, portraits and history are deleted.").wait_for()
    assert stored(app_store) == []
    page.get_by_role("button", name="Same settings as a portrait").click()
    give(page, tmp_path / "portrait.png", place="reuse")
    page.get_by_text("Give again: other photo 1 (a person beside).").wait_for()
    assert page.get_by_label("Second person", exact=True).input_value() == "other photo 1"
    give(page, woman)
    page.get_by_text("A face was found", exact=False).first.wait_for()
    assert page.get_by_label("Mouth in words").input_value() == ""  # nothing of before is left among them
    assert "size" not in page.locator("#stage").inner_text()  # nor places: they are as usual for two


def test_words_times_and_more_photos_on_a_phone(
    open_page: OpenPage, violations: Callable[["Page"], list[str]], people: tuple[Path, Path]
) -> None:
    woman, _ = people
    page = open_page(width=390)
    ready(page, woman)
    page.get_by_role("button", name=WORDS).click()
    page.get_by_label("Mouth in words").fill("laughing")
    page.get_by_label("Eyes from").fill("half")
    page.get_by_label("Person overall to").fill("0,8")
    page.get_by_role("button", name="Make portraits").click()
    page.get_by_text("“from” and “to” of eyes must be numbers from 0 to 1, or empty").wait_for()
    page.get_by_label("Eyes from").fill("0.5")
    page.get_by_role("button", name=FURTHER).click()
    give_other(page, "Further photo 1", woman)
    page.get_by_label("Each part from the photo that shows it best").check()
    make(page)
    made = record(page)
    assert (made["words"], made["starts"], made["ends"]) == ({"mouth": "laughing"}, {"eyes": 0.5}, {"identity": 0.8})
    assert ([donor["role"] for donor in made["donors"]], made["combine"]) == (["same"], "best")
    for group in (OTHERS, INTO):
        page.get_by_role("button", name=group).click()
    page.get_by_label("The head with its hair").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert violations(page) == []


def test_into_a_picture(open_page: OpenPage, people: tuple[Path, Path], app_store: Path, tmp_path: Path) -> None:
    woman, man = people
    page = open_page()
    ready(page, woman)
    landscape = tmp_path / "landscape.png"
    Image.new("RGB", (64, 64), "green").save(landscape)
    page.get_by_role("button", name=INTO).click()
    give(page, landscape, place="into")
    page.get_by_text("The picture: no face in the photo").wait_for()
    page.get_by_label("The people in the photos agree").check()
    give(page, man, place="into")
    page.get_by_text("The picture: a face was found.").wait_for()
    page.get_by_text("Say again whether the people in the photos agree.").wait_for()
    page.get_by_label("The head with its hair").check()
    page.get_by_label("number input for How much it changes").fill("1")
    make(page)
    with page.expect_download() as download:
        page.locator("#download-picture").click()
    download.value.save_as(tmp_path / "portrait.png")
    made = read_settings(tmp_path / "portrait.png")
    assert (made.task, made.consent) == ("inpaint", "not stated")
    with Image.open(tmp_path / "portrait.png") as portrait, Image.open(man) as picture:
        assert portrait.size == picture.size
        assert portrait.getpixel((2, 2)) == pytest.approx(picture.getpixel((2, 2)), abs=1)
    page.locator("#into").get_by_label("Remove Image").click()
    page.get_by_text("The picture: a face was found.").wait_for(state="hidden")
    assert not list((app_store / "app").rglob("man.jpg"))
