"""What a person does on the page."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Page


def give(page: "Page", path: Path, *, place: str = "photo") -> None:
    page.locator(f"#{place} input[type=file]").set_input_files(path)


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
