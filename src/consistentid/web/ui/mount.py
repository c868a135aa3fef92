"""The page inside the server's app."""

import os
from contextlib import suppress
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported

import gradio as gr
from fastapi import FastAPI, Request

from consistentid.errors import ConsistentIDError
from consistentid.web.access import Access
from consistentid.web.errors import MissingKey
from consistentid.web.service import PortraitService
from consistentid.web.ui.csp import ContentPolicy
from consistentid.web.ui.events import Events
from consistentid.web.ui.form import Form
from consistentid.web.ui.page import draw_page
from consistentid.web.ui.presets import presets
from consistentid.web.ui.session import Sessions

_EVERY, _AGE = 600, 3600  # seconds: how often uploads are looked through, and their age when they go
_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
_STYLE = Path(__file__).with_name("style.css")


def mount_page(app: FastAPI, *, path: str = "/") -> FastAPI:
    """Put the page into an app of `create_app`; it uses the app's service, limits and keys.

    Args:
        app: has the routes of `/v1`.
        path: of the page.
    """
    service: PortraitService = app.state.service
    folder = (service.config.store / "app").resolve()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.environ["GRADIO_TEMP_DIR"] = str(folder / "uploads")
    blocks = page_blocks(service, Sessions(service, folder / "sessions"))
    app.add_middleware(ContentPolicy)
    access: Access = app.state.access
    return gr.mount_gradio_app(
        app,
        blocks,
        path,
        server_name=service.config.host,
        server_port=service.config.port,
        footer_links=[],
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        max_file_size=service.config.max_body,
        allowed_paths=[str(each.path) for each in presets()],
        theme=gr.themes.Default(font=_FONTS, font_mono=("ui-monospace", "monospace")),
        css_paths=[_STYLE],
        **_guard(access),
    )


def page_blocks(service: PortraitService, sessions: Sessions) -> gr.Blocks:
    """The page with its events."""
    usual = Form.usual(service.generator)
    with gr.Blocks(title="ConsistentID", analytics_enabled=False, delete_cache=(_EVERY, _AGE)) as blocks:
        page = draw_page(usual, service.config)
        Events(page, sessions, usual=usual).connect(blocks)
    blocks.queue(default_concurrency_limit=16)
    return blocks


def _guard(access: Access) -> dict[str, object]:
    """Who may see the page: with keys, whoever knows one; without, browsers on this machine."""

    def known(_: str, key: str) -> bool:
        with suppress(MissingKey):
            return bool(access.of_key(key))
        return False

    if access.has_keys:
        return {
            "auth": known,
            "auth_message": "Any name, and an API key of this server as the password.",
        }

    def local(request: Request) -> str | None:
        try:
            return access.owner(request, None)
        except ConsistentIDError:
            return None

    return {"auth_dependency": local}
