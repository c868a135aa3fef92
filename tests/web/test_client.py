"""The client and `consistentid generate --server`, against a real server on a port of this machine."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from PIL import Image

from consistentid.cli.app import main
from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.portrait import read_settings
from consistentid.generation.settings import GenerationSettings
from consistentid.web.app import create_app
from consistentid.web.client import Client, ServerRefused
from consistentid.web.config import ServerConfig
from consistentid.web.jobs import JobState
from consistentid.web.service import PortraitService

pytestmark = pytest.mark.enable_socket

KEY = "the key"
QUICK = GenerationSettings(steps=2, scheduler="ddim", num_images=2)


@pytest.fixture(scope="module")
def url(generator: PortraitGenerator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    config = ServerConfig(store=tmp_path_factory.mktemp("server"), api_keys=(KEY,), preview_every=1, max_queue=1)
    app = create_app(config, PortraitService(config, [generator]))
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join()


def test_a_job_from_submission_to_deletion(url: str, photo: bytes, other_photo: bytes, tmp_path: Path) -> None:
    with Client(url, api_key=KEY) as client:
        assert client.models().models[0].name == "embedded"
        assert "eyes" in client.analyse(photo).regions
        job = client.submit(photo, "a portrait of a person", settings=QUICK, parts={"eyes": other_photo})
        events = list(client.follow(job.id))
        assert events[-1].state is JobState.SUCCEEDED
        assert any(event.preview for event in events)
        images = client.images(client.wait(job.id))
        (tmp_path / "portrait.png").write_bytes(images[1] or b"")
        assert read_settings(tmp_path / "portrait.png").index == 1
        client.delete(job.id)
        with pytest.raises(ServerRefused, match="there is no portrait job"):
            client.status(job.id)
        assert client.delete_all() == 0


def test_a_busy_server_is_asked_again(url: str, photo: bytes) -> None:
    with Client(url, api_key=KEY) as client:
        jobs = [client.submit(photo, "a person", settings=QUICK, idempotency_key=str(number)) for number in range(3)]
        assert {client.wait(job.id).state for job in jobs} == {JobState.SUCCEEDED}
        assert client.delete_all() == 3


def test_refusals_are_the_servers_sentence(url: str, photo: bytes) -> None:
    with pytest.raises(ServerRefused, match="an API key is needed") as refused, Client(url) as client:
        client.models()
    assert (refused.value.status, refused.value.kind) == (401, "missing-key")
    with pytest.raises(ServerRefused, match="sexualised"), Client(url, api_key=KEY) as client:
        client.submit(photo, "a naked person")
    with pytest.raises(ServerRefused, match="does not answer"), Client("http://127.0.0.1:9", timeout=1) as client:
        client.models()


def test_generate_on_a_server(
    url: str, photo: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: Any) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["generate", *map(str, arguments)])
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONSISTENTID_API_KEY", KEY)
    Path("me.jpg").write_bytes(photo)
    common = ("a portrait of a person", "--server", url, "--steps", 2, "--scheduler", "ddim")
    assert run("me.jpg", *common, "--seed", 3, "--out", "one.png") == (0, "one.png\n", "")
    assert read_settings("one.png").seed == 3
    with Client(url, api_key=KEY) as client:
        assert client.delete_all() == 0  # nothing stays there
    assert run("you.jpg", *common) == (1, "", "consistentid: you.jpg does not exist; check the path\n")
    refusal = "consistentid: one.jpg: a server gives PNG files; choose a name that ends in .png\n"
    assert run("me.jpg", *common, "--out", "one.jpg") == (1, "", refusal)
    code, _, err = run("me.jpg", *common, "--task", "controlnet")
    assert (code, err) == (1, "consistentid: a server does not make --task controlnet; leave it or --server out\n")
    code, _, err = run("me.jpg", *common, "--model", "sd15", "--best-of", 4)
    assert (code, err) == (1, "consistentid: --server URL decides best-of, model; leave them out\n")


def test_pictures_are_changed_on_a_server(
    url: str, photo: bytes, other_photo: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONSISTENTID_API_KEY", KEY)
    Path("me.jpg").write_bytes(photo)
    Path("scene.jpg").write_bytes(other_photo)
    Image.new("L", (64, 64), "white").save("mask.png")
    common = ("generate", "me.jpg", "a person", "--server", url, "--steps", "2", "--scheduler", "ddim")
    for name, options in {
        "into.png": ("--into", "scene.jpg", "--into-face", "left"),
        "hair.png": ("--mask", "hair", "--strength", "0.5"),
        "all.png": ("--mask", "mask.png", "--image", "scene.jpg"),
        "beside.png": ("--beside", "scene.jpg"),
    }.items():
        with pytest.raises(SystemExit, match="0"):
            main([*common, *options, "--out", name])
    scene, into = (np.asarray(Image.open(name).convert("RGB")) for name in ("scene.jpg", "into.png"))
    assert into.shape == scene.shape
    changed = (into != scene).any(-1)
    assert 0.02 < changed.mean() < 0.6  # the face alone
    assert not changed[:8].any()
    assert [read_settings(name).task for name in ("into.png", "hair.png", "all.png")] == ["inpaint"] * 3
    assert len(read_settings("beside.png").places) == 2
