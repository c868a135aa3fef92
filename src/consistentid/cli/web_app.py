"""`consistentid app`."""

from pathlib import Path

from consistentid.cli.serve import Serving, listen, require, started_service


def web_app(config: Path | None = None, /, *, serving: Serving | None = None) -> int:
    """Serve the web app, and the HTTP API beside it, until SIGTERM or Ctrl-C; open the address that is printed.

    Args:
        config: as for `consistentid serve`.
        serving: instead of what the configuration says; where API keys are needed, the page asks for one.
    """
    require("gradio")
    service = started_service(config, serving or Serving())
    from consistentid.web.app import create_app
    from consistentid.web.ui.mount import mount_page

    listen(mount_page(create_app(service.config, service)), service, page="/")
    return 0
