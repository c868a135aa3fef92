"""Who gets the page, and the comparison that it shows."""

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from consistentid.evaluation.likeness import draw_likeness, likeness_of
from consistentid.generation.generator import PortraitGenerator
from consistentid.web.app import create_app
from consistentid.web.config import ServerConfig
from consistentid.web.service import PortraitService

pytest.importorskip("gradio")


@pytest.fixture(autouse=True)
def _folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # mounting sets it; other tests' pages keep theirs


def page(generator: PortraitGenerator, config: ServerConfig) -> TestClient:
    from consistentid.web.ui.mount import mount_page

    return TestClient(mount_page(create_app(config, PortraitService(config, [generator]))), base_url="http://localhost")


def test_without_keys_only_this_machine_gets_the_page(generator: PortraitGenerator, config: ServerConfig) -> None:
    client = page(generator, config)
    answer = client.get("/")
    assert answer.status_code == 200
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 401
    assert client.get("/v1/health").json() == {"status": "ok"}


def test_a_photo_is_like_itself(generator: PortraitGenerator, photo: bytes) -> None:
    analyzer = generator.analyzer
    assert analyzer is not None
    reference = analyzer.analyze(photo)
    likeness = likeness_of(Image.fromarray(reference.photo), reference, analyzer=analyzer)
    assert likeness.identity == pytest.approx(1)
    assert all(value == pytest.approx(1) for value in likeness.regions.regions.values())
    assert max(draw_likeness(likeness).size) == 512
