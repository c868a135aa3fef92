"""From the command `consistentid app` to the first portrait in a browser, in seconds.

    python benchmarks/app_start.py

Needs the extra `web`, playwright and Chromium. Nothing is warm but the disk cache: the process starts, the page loads,
a photo is dropped on it, and a preset's portraits are drawn with the settings that a newcomer finds there.
"""

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2 as httpx
from playwright.sync_api import sync_playwright

PHOTO = Path(__file__).parents[1] / "examples" / "photos" / "synthetic-woman.jpg"
TRIES = 600


@contextmanager
def app(port: int) -> Iterator[None]:
    """`consistentid app` in a process of its own."""
    with tempfile.TemporaryDirectory() as store:
        command = [sys.executable, "-m", "consistentid", "app", "--port", str(port), "--store", store]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield
        finally:
            process.terminate()
            process.wait()


def answering(url: str) -> None:
    """Wait until the page is served."""
    for _ in range(TRIES):
        try:
            if httpx.get(url).is_success:
                return
        except httpx.HTTPError:
            time.sleep(0.1)
    raise SystemExit("the app did not start")


def main() -> None:
    """Print when the page answers, shows a photo's face, and its portraits."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    with sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        began = time.monotonic()

        def passed(what: str) -> None:
            print(f"{time.monotonic() - began:5.1f} s  {what}", flush=True)

        with app(port):
            answering(url)
            passed("the page answers")
            page = browser.new_page()
            page.goto(url)
            page.locator("#photo input[type=file]").set_input_files(PHOTO)
            page.get_by_text("A face was found").wait_for(timeout=60_000)
            passed("the photo's face is found")
            page.get_by_role("button", name="Smiling").click()
            page.get_by_role("button", name="Make portraits").click()
            page.get_by_text("Done.").wait_for(timeout=120_000)
            passed("the portraits are there")
        browser.close()


if __name__ == "__main__":
    main()
