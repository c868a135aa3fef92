"""The web app on a port of this machine, and Chromium in front of it."""

import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvicorn

from consistentid.generation.generator import PortraitGenerator
from consistentid.web.app import create_app
from consistentid.web.config import ServerConfig
from consistentid.web.service import PortraitService

playwright = pytest.importorskip("playwright.sync_api")
pytest.importorskip("gradio")

CHROMIUM = shutil.which("chromium")  # Debian's; where there is none, the one that playwright installs


@pytest.fixture(scope="session")
def app_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the running web app keeps its files."""
    return tmp_path_factory.mktemp("app")


@pytest.fixture(scope="session")
def app_url(generator: PortraitGenerator, app_store: Path) -> Iterator[str]:
    """Address of a running web app."""
    from consistentid.web.ui.mount import mount_page

    config = ServerConfig(store=app_store, rate="10000/minute", preview_every=1, drain=5)
    app = mount_page(create_app(config, PortraitService(config, [generator])))
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    server.should_exit = True
    thread.join(20)


@pytest.fixture(scope="session")
def browser() -> Iterator["playwright.Browser"]:
    """Chromium, which `.ci/run` installs."""
    with playwright.sync_playwright() as started:
        if not Path(CHROMIUM or started.chromium.executable_path).exists():
            pytest.skip("the page is tested in Chromium: apt-get install chromium, or playwright install chromium")
        running = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


OpenPage = Callable[..., "playwright.Page"]


@pytest.fixture
def open_page(app_url: str, browser: "playwright.Browser") -> Iterator[OpenPage]:
    """Opens the app in a window of a width; nothing outside of this machine may have been asked for."""
    asked: list[str] = []
    contexts = []

    def opened(*, width: int = 1280) -> "playwright.Page":
        context = browser.new_context(viewport={"width": width, "height": 844})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(app_url)
        page.get_by_role("button", name="Make portraits").wait_for()
        return page

    yield opened
    for context in contexts:
        context.close()
    assert [url for url in asked if not url.startswith((app_url, "data:", "blob:"))] == []


@pytest.fixture(scope="session")
def violations() -> "Callable[[playwright.Page], list[str]]":
    """Tells what axe-core finds serious in a page."""
    import axe_playwright_python

    script = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()

    def serious(page: "playwright.Page") -> list[str]:
        page.evaluate(script)
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
        return [f"{one['id']}: {one['nodes'][0]['html']}" for one in found if one["impact"] in ("serious", "critical")]

    return serious
