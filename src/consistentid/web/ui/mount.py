"""The page inside the server's app."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported

import gradio as gr
from fastapi import FastAPI
from starlette.requests import Request

from consistentid.errors import ConsistentIDError
from consistentid.web.access import Access
from consistentid.web.service import PortraitService
from consistentid.web.ui.csp import ContentPolicy
from consistentid.web.ui.events import Events
from consistentid.web.ui.form import Form
from consistentid.web.ui.ownership import Owned, Ownership
from consistentid.web.ui.page import draw_page
from consistentid.web.ui.presets import presets
from consistentid.web.ui.session import Sessions
from consistentid.web.ui.sign_in import PATH, SignIn

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
    shutil.rmtree(folder, ignore_errors=True)  # sessions do not outlive their server
    folder.mkdir(mode=0o700, parents=True)
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    ownership = Ownership(folder)
    blocks = page_blocks(service, Sessions(service, folder, ownership=ownership, access=app.state.access))
    ownership.publish()
    owner = _guard(app, ownership)
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
        run_history=False,  # Gradio's own would stay in the browser
        max_file_size=service.config.max_body,
        allowed_paths=[str(each.path) for each in presets()],
        theme=_theme(),
        css_paths=[_STYLE],
        auth_dependency=owner,
    )


def page_blocks(service: PortraitService, sessions: Sessions) -> gr.Blocks:
    """The page with its events."""
    usual = Form.usual(service.generator)
    with gr.Blocks(title="ConsistentID", analytics_enabled=False, delete_cache=(_EVERY, _AGE)) as blocks:
        page = draw_page(usual, service.config, forget=sessions.forget, release=sessions.uploads.release)
        Events(page, sessions, usual=usual).connect()
    blocks.queue(default_concurrency_limit=16)
    return blocks


def _guard(app: FastAPI, ownership: Ownership) -> Callable[[Request], str | None]:
    """Who may see the page: with keys, whoever has signed in with one; without, browsers on this machine."""
    access: Access = app.state.access
    signing = SignIn(access) if access.has_keys else None
    if signing is not None:
        app.include_router(signing.router)

    def local(request: Request) -> str | None:
        try:
            return access.owner(request, None)
        except ConsistentIDError:
            return None

    owner = local if signing is None else signing.owner
    app.add_middleware(Owned, owner=owner, ownership=ownership, sign_in=PATH if signing else None)
    app.add_middleware(ContentPolicy)
    return owner


def _theme() -> gr.themes.Base:
    """Fonts of the system, and colours that can be read."""
    theme = gr.themes.Default(primary_hue="blue", font=_FONTS, font_mono=("ui-monospace", "monospace"))
    return theme.set(
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_800",
        button_cancel_background_fill="#b91c1c",
        button_cancel_background_fill_hover="#991b1b",
        button_cancel_background_fill_dark="#b91c1c",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_200",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
    )
