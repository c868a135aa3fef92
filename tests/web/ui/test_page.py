"""The page in a real browser."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

OpenPage = Callable[..., "Page"]
pytestmark = pytest.mark.slow


@pytest.fixture
def small_photo(photo: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "woman.jpg"
    path.write_bytes(photo)
    return path


def give(page: "Page", path: Path) -> None:
    page.locator("#photo input[type=file]").set_input_files(path)


def quick(page: "Page", *, steps: int = 2) -> None:
    """A prompt and few steps."""
    page.get_by_role("button", name="Smiling").click()
    box = page.get_by_role("textbox", name="What should the portrait show?")
    page.wait_for_function("box => box.value.includes('smiling')", arg=box.element_handle())
    page.get_by_role("button", name="More settings").click()
    page.get_by_label("number input for Care: steps of drawing; more take longer").fill(str(steps))


def make(page: "Page") -> None:
    page.get_by_role("button", name="Make portraits").click()
    page.get_by_text("Done.").wait_for()


def record(page: "Page") -> dict[str, Any]:
    """The settings that are offered for download."""
    with page.expect_download() as download:
        page.locator("#download-settings").click()
    return json.loads(Path(download.value.path()).read_text())


def violations(page: "Page") -> list[str]:
    """What axe-core finds serious."""
    import axe_playwright_python

    page.evaluate((Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text())
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    return [f"{each['id']}: {each['nodes'][0]['html']}" for each in found if each["impact"] in ("serious", "critical")]


def test_photo_in_portrait_out_weights_history_and_same_settings(
    open_page: OpenPage, small_photo: Path, tmp_path: Path
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


def test_errors_are_sentences(open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page()
    page.get_by_role("button", name="Make portraits").click()
    page.get_by_text("Say in a few words what the portrait should show").wait_for()
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    give(page, broken)
    page.get_by_text("Photo is no JPEG, PNG or WebP file.").wait_for()
    assert "Traceback" not in page.inner_text("body")


def test_a_phone_shows_all_of_it(open_page: OpenPage, small_photo: Path) -> None:
    page = open_page(width=390)
    give(page, small_photo)
    page.get_by_text("A face was found").wait_for()
    quick(page)
    make(page)
    page.locator("#history .thumbnail-item").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert violations(page) == []
