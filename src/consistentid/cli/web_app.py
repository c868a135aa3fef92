"""`consistentid app`."""

from pathlib import Path

from consistentid.cli.serve import listen, require, started_service


def web_app(
    config: Path | None = None,
    /,
    *,
    host: str | None = None,
    port: int | None = None,
    model: str | None = None,
    adapter: str | None = None,
    device: tuple[str, ...] = (),
    store: Path | None = None,
    api_keys_file: Path | None = None,
) -> int:
    """Serve the web app, and the HTTP API beside it, until SIGTERM or Ctrl-C; open the address that is printed.

    Args:
        config: as for `consistentid serve`.
        host: where to listen; beyond 127.0.0.1, API keys are needed, and the page asks for one.
        port: likewise.
        model: embedded, sd15, sdxl, a folder, a single .safetensors file, or a hub id.
        adapter: folder of an identity adapter, a released file, or the hub id of one.
        device: one worker on each; give several for several.
        store: folder of jobs, photos and portraits.
        api_keys_file: one key a line.
    """
    require("gradio")
    service = started_service(
        config, host=host, port=port, model=model, adapter=adapter, device=device, store=store,
        api_keys_file=api_keys_file,
    )  # fmt: skip
    from consistentid.web.app import create_app
    from consistentid.web.ui.mount import mount_page

    listen(mount_page(create_app(service.config, service)), service, page="/")
    return 0
