"""People with different keys see nothing of each other, in the page and beside it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from consistentid.errors import UnreadableImage
from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.portrait import read_settings
from consistentid.web.access import Access
from consistentid.web.app import create_app
from consistentid.web.config import ServerConfig
from consistentid.web.errors import TooManyRequests
from consistentid.web.jobs import PortraitRequest
from consistentid.web.service import PortraitService
from consistentid.web.ui.given import Given
from consistentid.web.ui.ownership import Ownership
from consistentid.web.ui.session import Draft, Session, Sessions

pytest.importorskip("gradio")

ANNA, BERT = ({"Authorization": f"Bearer {name}"} for name in ("anna", "bert"))


@pytest.fixture
def service(generator: PortraitGenerator, tmp_path: Path) -> PortraitService:
    config = ServerConfig(
        store=tmp_path / "store", api_keys=(SecretStr("anna"), SecretStr("bert")), rate="1000/minute", drain=20
    )
    return PortraitService(config, [generator])


@pytest.fixture
def browse(service: PortraitService, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A browser in front of one server, signed in with a key."""
    from consistentid.web.ui.mount import mount_page

    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # mounting sets it; other tests' pages keep theirs
    app = mount_page(create_app(service.config, service))

    def browser(key: str | None = None) -> TestClient:
        client = TestClient(app, base_url="http://localhost", follow_redirects=False)
        if key is not None:
            assert client.post("/sign-in", data={"key": key}).status_code == 303
        return client

    return browser


def upload(client: TestClient, content: bytes) -> str:
    [path] = client.post("/gradio_api/upload", files={"files": ("me.jpg", content)}).json()
    return str(path)


def test_a_photo_is_read_by_whoever_gave_it(browse: Any, service: PortraitService, photo: bytes) -> None:
    anna, bert, stranger = browse("anna"), browse("bert"), browse()
    path = upload(anna, photo)
    assert anna.get(f"/gradio_api/file={path}").content == photo
    for client, status in ((bert, 404), (stranger, 401)):
        for odd in (path, path.replace("/me.jpg", "/../" + Path(path).parent.name + "/me.jpg"), f"/{path}"):
            assert client.get(f"/gradio_api/file={odd}").status_code == status
        assert client.get(f"/gradio_api/file/{path}").status_code == status  # Gradio's older address of the same file
    assert anna.get(f"/gradio_api/file={path}").headers["cache-control"] == "no-store"
    for odd in (Path(path).parents[1], "%00", Path(path).parent):
        assert anna.get(f"/gradio_api/file={odd}").status_code in (403, 404)
    database = service.config.store / "jobs.sqlite"
    assert anna.get(f"/gradio_api/file={database.resolve()}").status_code == 403
    assert anna.get("/gradio_api/file=http://127.0.0.1/x").status_code == 404  # the server fetches nothing for others
    [preset] = {text for text in re.findall(r'[^"]+/smiling.webp', bert.get("/config").text) if "://" not in text}
    assert bert.get(f"/gradio_api/file={preset}").status_code == 200  # the page's own pictures are everybody's
    assert upload(bert, photo) == path  # equal uploads are one file
    assert bert.get(f"/gradio_api/file={path}").status_code == 200


def test_a_session_is_of_whoever_began_it(browse: Any) -> None:
    anna, bert, stranger = browse("anna"), browse("bert"), browse()
    event = {"fn_index": 0, "session_hash": "abc", "data": []}
    assert anna.post("/gradio_api/queue/join", json=event).status_code != 404
    for client, status in ((bert, 404), (stranger, 401)):
        assert client.post("/gradio_api/queue/join", json=event).status_code == status
        for address in ("queue/data?session_hash=abc", "heartbeat/abc", "deep_link?session_hash=abc"):
            assert client.get(f"/gradio_api/{address}").status_code == status
    for address in ("call/x/abc", "stream/abc/1/2/playlist-file", "proxy=https://x.hf.space/", "file//etc/hostname"):
        assert anna.get(f"/gradio_api/{address}").status_code == 404
    assert anna.post("/gradio_api/queue/join", json={**event, "session_hash": "a" * 65}).status_code == 404
    assert anna.post("/gradio_api/queue/join", content=b" " * 1_000_001).status_code == 413
    for address in ("config", "gradio_api/info", "gradio_api/startup-events", "gradio_api/queue/status"):
        assert stranger.get(f"/{address}").status_code == 401


def test_signing_in(browse: Any) -> None:
    stranger = browse()
    answer = stranger.get("/", headers={"accept": "text/html"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")
    page = stranger.get("/sign-in")
    assert "API key of this server" in page.text
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    wrong = stranger.post("/sign-in", data={"key": "ann"})
    assert (wrong.status_code, "set-cookie" in wrong.headers) == (401, False)
    elsewhere = stranger.post("/sign-in", data={"key": "bert"}, headers={"Sec-Fetch-Site": "cross-site"})
    assert (elsewhere.status_code, "set-cookie" in elsewhere.headers) == (403, False)
    right = stranger.post("/sign-in", data={"key": "anna"})
    assert "HttpOnly" in right.headers["set-cookie"]
    assert "anna" not in right.headers["set-cookie"]
    assert stranger.get("/").status_code == 200
    assert browse().get("/config", headers={"cookie": "consistentid=guessed"}).status_code == 401


def test_a_picture_of_the_page_outlives_an_equal_upload(tmp_path: Path) -> None:
    preset = tmp_path / "abc" / "smiling.webp"
    preset.parent.mkdir()
    preset.touch()
    ownership = Ownership(tmp_path)
    ownership.publish()
    ownership.add(preset, owner="anna")
    assert not ownership.drop(preset, owner="anna")
    assert ownership.may_read(preset, owner="bert")


@pytest.mark.slow
@pytest.mark.enable_socket
def test_whoever_signs_in_is_helped(browse: Any, browser: Any, violations: Any) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.set_content(browse().post("/sign-in", data={"key": "ann"}).text)
    assert page.get_by_role("alert").inner_text() == "This key is not known here."
    page.get_by_label("API key of this server").fill("anna")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert violations(page) == []


def test_photos_of_others_are_read_by_whoever_gave_them_and_go_when_they_cannot_be_used(
    service: PortraitService, photo: bytes, other_photo: bytes, tmp_path: Path
) -> None:
    folder, names = tmp_path / "app", ("woman", "man", "broken")
    ownership = Ownership(folder)
    sessions = Sessions(service, folder, ownership=ownership, access=Access(("anna", "bert"), rate="9/minute"))
    for name, content in zip(names, (photo, other_photo, b"no picture"), strict=True):
        (folder / name).mkdir(parents=True)
        (folder / name / "me.jpg").write_bytes(content)
        ownership.add(folder / name, owner="anna")
    woman, man, broken = (folder / name / "me.jpg" for name in names)
    with pytest.raises(UnreadableImage, match="give it again"):
        sessions.other(None, woman, owner="bert")
    first = sessions.other(None, woman, owner="anna")
    assert sessions.other(first, man, owner="anna") is not None
    with pytest.raises(UnreadableImage, match="no JPEG, PNG or WebP"):
        sessions.other(None, broken, owner="anna")
    assert [path for path in folder.rglob("*") if path.is_file()] == [man]


def test_tries_of_a_key_are_counted(
    generator: PortraitGenerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from consistentid.web.ui.mount import mount_page

    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    config = ServerConfig(store=tmp_path, api_keys=(SecretStr("anna"),), rate="2/minute")
    client = TestClient(mount_page(create_app(config, PortraitService(config, [generator]))))
    tries = [client.post("/sign-in", data={"key": "x"}).status_code for _ in range(3)]
    assert tries == [401, 401, 429]


@contextmanager
def running(service: PortraitService) -> Iterator[TestClient]:
    with TestClient(create_app(service.config, service), base_url="http://localhost") as client:
        yield client


def test_portraits_of_the_page_belong_to_its_key(service: PortraitService, photo: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "app"
    ownership = Ownership(folder)
    access = Access(("anna", "bert"), rate="2/minute")
    owner = access.of_key("anna")
    sessions = Sessions(service, folder, ownership=ownership, access=access)
    with running(service) as client:
        given = folder / "upload" / "me.jpg"
        given.parent.mkdir(parents=True)
        given.write_bytes(photo)
        ownership.add(given, owner=owner)
        with pytest.raises(UnreadableImage, match="give it again"):
            sessions.given(Draft.new(), given, owner="key-of-bert")
        draft = sessions.look_at(sessions.given(Draft.new(), given, owner=owner))
        request = PortraitRequest(prompt="a person", steps=2, scheduler="ddim", num_images=2)
        session = sessions.submit(Session.new(), draft, request, owner=owner)
        assert list(sessions.follow(session))[-1].job.state == "succeeded"
        with pytest.raises(TooManyRequests):
            sessions.submit(session, draft, request, owner=owner)
        session = sessions.finished(session, reference=draft.analysis)  # type: ignore[arg-type]
        [entry] = session.entries
        assert read_settings(entry.pictures[1]).index == 1
        assert not ownership.may_read(entry.pictures[0], owner="key-of-bert")
        assert ownership.may_read(entry.pictures[0], owner=owner)
        assert client.get("/v1/portraits", headers=BERT).json() == []
        assert [job["id"] for job in client.get("/v1/portraits", headers=ANNA).json()] == list(session.jobs)
        assert client.delete("/v1/portraits", headers=BERT).json() == {"deleted": 0}
        assert entry.is_kept
        assert client.delete("/v1/portraits", headers=ANNA).json() == {"deleted": 1}
        assert not entry.is_kept  # those that the page shows have gone, too
        sessions.uploads.release(Given(photo, given, "key-of-bert"))
        assert given.exists()
        sessions.uploads.release(draft.photo)
    assert [path for path in folder.rglob("*") if path.is_file()] == []
