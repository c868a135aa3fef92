"""The embedded model behind a service, in this process."""

import base64
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image

from consistentid.generation.generator import PortraitGenerator
from consistentid.web.app import create_app
from consistentid.web.config import ServerConfig
from consistentid.web.service import PortraitService


@pytest.fixture(scope="session")
def generator() -> PortraitGenerator:
    torch.set_num_threads(1)
    return PortraitGenerator.from_pretrained("embedded", offline=True, cache=False)


@pytest.fixture(scope="session")
def photo(sample_photos: dict[str, Path]) -> bytes:
    return small(sample_photos["synthetic-woman"])


@pytest.fixture(scope="session")
def other_photo(sample_photos: dict[str, Path]) -> bytes:
    return small(sample_photos["official-man"])


def small(path: Path) -> bytes:
    """A photo in which dlib finds the face quickly."""
    image, content = Image.open(path).convert("RGB"), BytesIO()
    image.thumbnail((320, 320))
    image.save(content, "JPEG", quality=95)
    return content.getvalue()


@pytest.fixture
def config(tmp_path: Path) -> ServerConfig:
    return ServerConfig(store=tmp_path / "store", rate="10000/minute", preview_every=1, drain=20, lease=5)


Serve = Callable[..., TestClient]


@pytest.fixture
def serve(config: ServerConfig, generator: PortraitGenerator) -> Iterator[Serve]:
    """Starts a server with other settings."""
    running: list[TestClient] = []

    def start(**changes: Any) -> TestClient:
        settings = ServerConfig(**{**config.model_dump(exclude_unset=True), **changes})
        app = create_app(settings, PortraitService(settings, [generator]))
        client = TestClient(app, base_url="http://localhost", raise_server_exceptions=False)
        client.__enter__()
        running.append(client)
        return client

    yield start
    for client in running:
        client.__exit__(None, None, None)


@pytest.fixture
def client(serve: Serve) -> TestClient:
    return serve()


Ended = Callable[..., dict[str, Any]]


@pytest.fixture
def ended() -> Ended:
    """Gives the status of a job once it has ended."""

    def wait(client: TestClient, location: str, *, seconds: float = 60, **options: Any) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            status: dict[str, Any] = client.get(location, **options).json()
            if status["state"] in {"succeeded", "failed", "cancelled"}:
                return status
            time.sleep(0.05)
        raise AssertionError(f"the job has not ended: {status}")

    return wait


@pytest.fixture
def quick() -> dict[str, Any]:
    """A request that takes two steps."""
    return {"prompt": "a portrait photo of a person", "steps": 2, "scheduler": "ddim"}


Submit = Callable[..., str]


@pytest.fixture
def submit(photo: bytes, quick: dict[str, Any]) -> Submit:
    """Queues a quick job with changes; gives its location."""

    def send(client: TestClient, content: bytes = photo, **changes: Any) -> str:
        body = {**quick, **changes, "photo": base64.b64encode(content).decode()}
        answer = client.post("/v1/portraits", json=body)
        assert answer.status_code == 202, answer.text
        return str(answer.headers["location"])

    return send
