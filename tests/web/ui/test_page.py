"""The page in a real browser."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image, ImageOps
from tests.web.ui.steps import give, make, quick, record

from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.portrait import read_settings

if TYPE_CHECKING:
    from playwright.sync_api import Page

OpenPage = Callable[..., "Page"]
Violations = Callable[["Page"], list[str]]
pytestmark = pytest.mark.enable_socket  # loopback only: the page itself may call nothing else


@pytest.fixture
def small_photo(photo: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "woman.jpg"
    path.write_bytes(photo)
    return path


def test_photo_in_portrait_out(open_page: OpenPage, small_photo: Path, tmp_path: Path) -> None:
    page = open_page()
    assert page.get_by_text("No portraits yet.").is_visible()
    page.wait_for_function("[...document.querySelectorAll('#presets img')].every(each => each.naturalWidth > 0)")
    give(page, small_photo)
    page.get_by_text("A face was found").wait_for()
    page.get_by_label("The people in the photos agree").check()
    quick(page)
    make(page)
    with page.expect_download() as download:
        page.locator("#download-picture").click()
    portrait = tmp_path / "portrait.png"
    download.value.save_as(portrait)
    made = read_settings(portrait)
    assert (made.steps, made.consent, made.photo) == (2, "stated", None)
    assert made.prompt.startswith("a portrait photo of a smiling person")
    page.get_by_role("button", name="Delete everything of this session").click()
    page.get_by_text("Photos, portraits and history are deleted.").wait_for()
    page.get_by_text("Drop a JPEG, PNG or WebP here").wait_for()


@pytest.mark.slow
def test_the_choice_of_a_face_changes_who_is_drawn(
    open_page: OpenPage, sample_photos: dict[str, Path], generator: PortraitGenerator, tmp_path: Path
) -> None:
    people = [Image.open(sample_photos[name]).convert("RGB") for name in ("official-man", "synthetic-woman")]
    man, woman = (ImageOps.fit(one, (side, side)) for one, side in zip(people, (400, 320), strict=True))
    group = Image.new("RGB", (720, 400), "white")
    group.paste(woman, (0, 40))
    group.paste(man, (320, 0))
    group.save(tmp_path / "group.png")
    page = open_page()
    give(page, tmp_path / "group.png")
    page.get_by_text("2 faces were found, and number 1 is chosen.").wait_for()
    quick(page, steps=15)
    page.locator("#locked input").check()
    portraits, captions = [], []
    for number in (1, 2):
        page.get_by_label(f"Face {number}").check()
        page.get_by_text(f"number {number} is chosen").wait_for()
        captions.append(page.get_by_label("Description of the face").input_value())
        make(page)
        page.wait_for_function(f"document.querySelectorAll('#history .thumbnail-item').length == {number}")
        assert record(page)["face"] == (number - 1 if number == 2 else "largest")
        with page.expect_download() as download:
            page.locator("#download-picture").click()
        download.value.save_as(tmp_path / f"{number}.png")
        portraits.append(embedding(generator, tmp_path / f"{number}.png"))
    page.locator("#compare").click()
    page.get_by_role("row", name="Overall identity").wait_for()
    assert page.get_by_role("row", name="Eyes").inner_text().split()[-1].startswith("0.")
    assert captions[0] != captions[1]
    first, second = (embedding(generator, sample_photos[name]) for name in ("official-man", "synthetic-woman"))
    assert portraits[0] @ first > portraits[1] @ first
    assert portraits[1] @ second > portraits[0] @ second


def embedding(generator: PortraitGenerator, path: Path) -> np.ndarray:
    """Of the face in a picture, of length 1."""
    assert generator.analyzer is not None
    found = generator.analyzer.analyze(path).identity_embedding
    return found / np.linalg.norm(found)


@pytest.mark.slow
def test_weights_history_and_same_settings(
    open_page: OpenPage, violations: Violations, small_photo: Path, tmp_path: Path
) -> None:
    page = open_page()
    assert violations(page) == []
    give(page, small_photo)
    page.get_by_text("A face was found").wait_for()
    quick(page)
    make(page)
    plain = record(page)
    assert plain["steps"] == 2
    assert plain["weights"] == {}
    page.get_by_label("number input for How strongly: eyes").fill("1.3")
    page.locator("#use-nose input").uncheck()
    make(page)
    page.wait_for_function("document.querySelectorAll('#history .thumbnail-item').length == 2")
    weighted = record(page)
    assert weighted["weights"] == {"eyes": 1.3}
    assert weighted["regions"] == ["face", "ears", "eyes", "mouth"]
    assert weighted["seed"] != plain["seed"]  # the number was not kept
    page.locator("#compare").click()
    assert page.locator(".likeness, #likeness .notice").first.inner_text()
    assert violations(page) == []
    page.locator("#history .thumbnail-item").nth(1).click()
    page.get_by_text("The settings of this entry are back.").wait_for()
    assert page.locator("#use-nose input").is_checked()
    make(page)
    assert record(page) == {**plain, "batch_position": 0}  # the number was kept, so it is the same portrait
    with page.expect_download() as download:
        page.locator("#download-picture").click()
    portrait = tmp_path / "portrait.png"
    download.value.save_as(portrait)
    other = open_page()
    other.get_by_role("button", name="Same settings as a portrait").click()
    other.locator("#reuse input[type=file]").set_input_files(portrait)
    other.get_by_text("The settings of that portrait are set").wait_for()
    assert "smiling" in other.get_by_role("textbox", name="What should the portrait show?").input_value()


@pytest.mark.slow
def test_a_running_job_is_cancelled(open_page: OpenPage, small_photo: Path) -> None:
    page = open_page()
    give(page, small_photo)
    page.get_by_text("A face was found").wait_for()
    quick(page, steps=100)
    page.get_by_role("button", name="Make portraits").click()
    page.locator(".stage img").wait_for()  # a live preview
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("Cancelled; nothing was made.").wait_for()
    assert page.get_by_role("button", name="Make portraits").is_enabled()


@pytest.mark.slow
def test_errors_are_sentences(open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page()
    page.get_by_role("button", name="Make portraits").press("Enter")
    page.get_by_text("Say in a few words what the portrait should show").wait_for()
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    give(page, broken)
    page.get_by_text("Photo is no JPEG, PNG or WebP file.").wait_for()
    assert "Traceback" not in page.inner_text("body")


@pytest.mark.slow
def test_a_phone_shows_all_of_it(open_page: OpenPage, violations: Violations, small_photo: Path) -> None:
    page = open_page(width=390)
    give(page, small_photo)
    page.get_by_text("A face was found").wait_for()
    quick(page)
    make(page)
    page.locator("#history .thumbnail-item").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert violations(page) == []
