"""Submit, follow, fetch, cancel, delete."""

import base64
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.origin import Origin
from consistentid.generation.portrait import read_settings
from consistentid.web.app import create_app
from consistentid.web.config import ServerConfig
from consistentid.web.service import PortraitService


def encoded(size: tuple[int, int]) -> str:
    content = BytesIO()
    Image.new("RGB", size, "grey").save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode()


LONG, LARGE = encoded((4000, 8)), encoded((2600, 2600))


def test_a_portrait_from_photo_to_record(
    client: TestClient, photo: bytes, tmp_path: Path, config: ServerConfig, quick: Any, ended: Any
) -> None:
    form = {"request": json.dumps({**quick, "num_images": 2, "seed": 7})}
    answer = client.post("/v1/portraits", data=form, files={"photo": ("../../x.jpg", photo, "image/jpeg")})
    assert answer.status_code == 202, answer.text
    location = answer.headers["location"]
    assert answer.json()["state"] in {"queued", "running"}
    status = ended(client, location)
    assert (status["state"], status["step"], status["steps"]) == ("succeeded", 2, 2)
    assert [one["seed"] for one in status["portraits"]] == [7, 8]
    path = tmp_path / "portrait.png"
    path.write_bytes(client.get(status["portraits"][1]["url"]).content)
    record = read_settings(path)
    assert (record.index, record.prompt, record.photo) == (1, quick["prompt"], None)
    assert client.get(f"{location}/record").json()[1] == record.model_dump(mode="json")
    names = {file.name for file in (config.store / "files").rglob("*") if file.is_file()}
    assert names == {"portrait_0.png", "portrait_0.json", "portrait_1.png", "portrait_1.json"}  # the photo has gone


def test_followers_see_every_step_and_previews(client: TestClient, photo: bytes, submit: Any) -> None:
    location = submit(client, steps=4)
    with client.stream("GET", f"{location}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        events = [json.loads(line[5:]) for line in stream.iter_lines() if line.startswith("data:")]
    assert events[-1]["state"] == "succeeded"
    previews = [event["preview"] for event in events if event["preview"]]
    assert previews
    assert Image.open(BytesIO(base64.b64decode(previews[0]))).size == (128, 128)


def test_a_running_job_is_cancelled_and_forgotten(
    client: TestClient, config: ServerConfig, submit: Any, ended: Any
) -> None:
    location = submit(client, steps=100)
    with client.stream("GET", f"{location}/events") as stream:
        for line in stream.iter_lines():
            if line.startswith("data:") and json.loads(line[5:])["step"]:
                break
        assert client.delete(location).status_code == 204
    assert client.get(location).status_code == 404
    next_one = ended(client, submit(client))
    assert next_one["state"] == "succeeded"
    assert "consistentid_images_total 1.0" in client.get("/v1/metrics").text  # the other run was stopped
    assert [folder.name for folder in (config.store / "files").iterdir()] == [next_one["id"]]


def test_the_same_idempotency_key_gives_the_same_job(client: TestClient, photo: bytes, quick: Any) -> None:
    body = {**quick, "photo": base64.b64encode(photo).decode()}
    key = {"Idempotency-Key": "one"}
    first = client.post("/v1/portraits", json=body, headers=key)
    assert client.post("/v1/portraits", json=body, headers=key).json()["id"] == first.json()["id"]
    other = client.post("/v1/portraits", json={**body, "seed": 1}, headers=key)
    assert other.status_code == 422
    assert other.json()["type"] == "urn:consistentid:problem:key-reused"
    assert len(client.get("/v1/portraits").json()) == 1


def test_a_full_queue_says_when_to_come_back(serve: Any, photo: bytes, quick: Any) -> None:
    client = serve(max_queue=2, batch_size=1)
    body = {**quick, "steps": 50, "photo": base64.b64encode(photo).decode()}
    answers = [client.post("/v1/portraits", json=body) for _ in range(6)]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused
    assert {answer.status_code for answer in answers} == {202, 429}
    assert int(refused[0].headers["retry-after"]) >= 1
    assert refused[0].headers["content-type"] == "application/problem+json"
    assert client.delete("/v1/portraits").json() == {"deleted": 6 - len(refused)}
    assert client.get("/v1/portraits").json() == []


def test_photos_of_others_take_part(
    client: TestClient, photo: bytes, other_photo: bytes, quick: Any, ended: Any
) -> None:
    files = {
        "photo": ("a", photo),
        "parts.eyes": ("b", other_photo),
    }
    answer = client.post("/v1/portraits", data={"request": json.dumps(quick)}, files=files)
    status = ended(client, answer.headers["location"])
    assert status["state"] == "succeeded"
    assert [one["role"] for one in client.get(f"{answer.headers['location']}/record").json()[0]["donors"]] == ["eyes"]


def test_the_record_says_which_photo_is_of_somebody_else(
    client: TestClient, photo: bytes, other_photo: bytes, quick: Any, ended: Any
) -> None:
    files = [("photo", ("a", photo)), ("same", ("b", other_photo)), ("same", ("c", photo))]
    answer = client.post("/v1/portraits", data={"request": json.dumps(quick)}, files=files)
    status = ended(client, answer.headers["location"])
    assert status["state"] == "succeeded"
    [record] = client.get(f"{answer.headers['location']}/record").json()
    assert record["left_out"] == [1]
    assert b'"left_out":[1]' in client.get(status["portraits"][0]["url"]).content.replace(b" ", b"")


def test_a_photo_without_a_face_fails_in_a_sentence(client: TestClient, submit: Any, ended: Any) -> None:
    grey = BytesIO()
    Image.new("RGB", (40, 40), "grey").save(grey, "PNG")
    status = ended(client, submit(client, grey.getvalue()))
    assert status["state"] == "failed"
    assert status["error"].startswith("no face in the photo")


def test_a_picture_is_changed(client: TestClient, photo: bytes, other_photo: bytes, quick: Any, ended: Any) -> None:
    jobs = {}
    for name, (asked, files) in {
        "img2img": ({"task": "img2img", "strength": 0.5, "steps": 4}, {"image": ("a", other_photo)}),
        "hair": ({"task": "inpaint", "mask": "hair", "steps": 4}, {}),
        "into": ({"num_images": 2, "steps": 4}, {"into": ("b", other_photo)}),
    }.items():
        form = {"request": json.dumps({**quick, **asked})}
        answer = client.post("/v1/portraits", data=form, files={"photo": ("x", photo), **files})
        assert answer.status_code == 202, answer.text
        jobs[name] = ended(client, answer.headers["location"])
    assert {status["state"] for status in jobs.values()} == {"succeeded"}, jobs
    assert jobs["img2img"]["request"]["strength"] == 0.5
    into = [Image.open(BytesIO(client.get(one["url"]).content)) for one in jobs["into"]["portraits"]]
    assert [one.size for one in into] == [Image.open(BytesIO(other_photo)).size] * 2
    assert into[0].tobytes() != into[1].tobytes()


def test_somebody_chosen_is_replaced(
    client: TestClient, photo: bytes, other_photo: bytes, quick: Any, ended: Any
) -> None:
    both = Image.new("RGB", (800, 320), "grey")
    for content, left in ((other_photo, 0), (photo, 480)):
        both.paste(Image.open(BytesIO(content)), (left, 0))
    group = BytesIO()
    both.save(group, "PNG")
    jobs = {}
    for face in ("left", "right", 2):
        form = {"request": json.dumps({**quick, "into_face": face})}
        files = {"photo": ("x", photo), "into": ("y", group.getvalue())}
        answer = client.post("/v1/portraits", data=form, files=files)
        assert answer.status_code == 202, answer.text
        jobs[face] = ended(client, answer.headers["location"])
    sides = []
    for face in ("left", "right"):
        assert jobs[face]["request"]["into_face"] == face
        made = Image.open(BytesIO(client.get(jobs[face]["portraits"][0]["url"]).content)).convert("RGB")
        changed = (np.asarray(made) != np.asarray(both)).any((0, 2))
        sides.append((changed[:400].any(), changed[400:].any()))
    assert sides == [(True, False), (False, True)]
    assert jobs[2]["state"] == "failed"
    assert jobs[2]["error"] == "face largest:2 is not in the photo, where 2 faces are found; count from 0"


def test_records_hold_no_place_on_the_server(
    serve: Any, generator: PortraitGenerator, submit: Any, ended: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Origin(model="/srv/secret/base", adapter="/srv/secret/adapter", loras=("/srv/secret/ink.safetensors:0.5",))
    monkeypatch.setattr(generator.renderer, "origin", here)
    client = serve()
    location = submit(client)
    assert ended(client, location)["state"] == "succeeded"
    [record] = client.get(f"{location}/record").json()
    assert (record["model"], record["adapter"], record["loras"]) == ("base", "adapter", ["ink.safetensors:0.5"])
    assert record["weights_sha256"] == client.get("/v1/models").json()["models"][0]["weights_sha256"]
    picture = client.get(f"{location}/images/0").content
    assert b"/srv/" not in picture
    assert b"ink.safetensors" in picture


def test_a_deleted_job_leaves_nothing_on_the_disk(
    client: TestClient, config: ServerConfig, submit: Any, ended: Any
) -> None:
    location = submit(client, prompt="Annegret at the sea")
    assert ended(client, location)["state"] == "succeeded"
    assert any(b"Annegret" in file.read_bytes() for file in config.store.rglob("*") if file.is_file())
    client.delete(location)
    left = {file.name: file.read_bytes() for file in config.store.rglob("*") if file.is_file()}
    assert [name for name, content in left.items() if b"Annegret" in content or b"\xff\xd8" in content] == []


def test_everything_that_is_remembered_can_be_deleted(
    serve: Any, generator: PortraitGenerator, config: ServerConfig, photo: bytes
) -> None:
    forgotten = []

    class Other(PortraitGenerator):
        """A second device's, which says when it forgets."""

        def forget(self) -> None:
            forgotten.append(True)
            super().forget()

    other = Other(generator.pipeline, generator.adapter, analyzer=generator.analyzer)
    service = PortraitService(config, [generator, other])
    with TestClient(create_app(config, service), base_url="http://localhost") as client:
        assert client.post("/v1/analyses", files={"photo": ("x", photo)}).status_code == 200
        assert not forgotten
        assert client.delete("/v1/portraits").json() == {"deleted": 0}  # photos may have been looked at all the same
        assert forgotten


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"steps": 101}, "101 steps were asked for; this server makes at most 100"),
        ({"sede": 1}, "sede: Extra inputs are not permitted"),
        ({"prompt": "a nude person"}, "sexualised"),
        ({"scheduler": "nothing"}, "nothing"),
        ({"regions": ["feet"]}, "feet"),
        ({"photo": "AAAA"}, "photo is no JPEG, PNG or WebP file"),
        ({"prompt": "x" * 2001}, "2001 characters"),
        ({"clauses": ["x" * 2001]}, "characters of prompt, negative prompt, caption, words and clauses"),
        ({"places": ["mask:" + "x" * 20_000]}, "characters of a place"),
        ({"task": "controlnet"}, "task: Input should be"),
        ({"strength": 0.5}, "takes no argument strength"),
        ({"task": "inpaint"}, "needs the argument mask_image"),
        ({"task": "inpaint", "mask": "feet"}, "there is no mask 'feet'"),
        ({"task": "img2img", "strength": 0.1}, "of 2 steps, strength leaves none to run"),
        ({"task": "img2img", "others": {"image": "AAAA"}}, "image is no JPEG, PNG or WebP file"),
        ({"task": "img2img", "others": {"image": LONG}}, "this server makes at most 1536 a side"),
        ({"others": {"into": LONG, "image": LONG}}, "into takes the place of task, image and mask_image"),
        ({"into_face": "left"}, "into_face says who is replaced in the photo into; send that too"),
        ({"into_face": "middle", "others": {"into": LONG}}, "face 'middle' is no choice; write one of largest"),
        ({"num_images": 8, "others": {"into": LARGE}}, "8 pictures of 2600 x 2600 are more than 40 million pixels"),
    ],
)
def test_refusals_come_before_the_queue(
    client: TestClient, photo: bytes, changes: Any, detail: str, quick: Any
) -> None:
    body = {**quick, "photo": base64.b64encode(photo).decode(), **changes}
    answer = client.post("/v1/portraits", json=body)
    assert answer.status_code == 422
    problem = answer.json()
    assert detail in problem["detail"]
    assert (problem["status"], problem["title"]) == (422, "Unprocessable Content")
    assert client.get("/v1/portraits").json() == []


def test_keys_keep_owners_apart(serve: Any, photo: bytes, quick: Any, ended: Any) -> None:
    client = serve(api_keys=("anna", "bert"))
    anna, bert = ({"Authorization": f"Bearer {name}"} for name in ("anna", "bert"))
    body = {**quick, "photo": base64.b64encode(photo).decode()}
    assert client.post("/v1/portraits", json=body).status_code == 401
    assert client.get("/v1/models", headers={"Authorization": "Bearer ann"}).status_code == 401
    location = client.post("/v1/portraits", json=body, headers=anna).headers["location"]
    assert ended(client, location, headers=anna)["state"] == "succeeded"
    assert client.get(location, headers=bert).status_code == 404
    assert client.delete(location, headers=bert).status_code == 404
    assert client.get("/v1/portraits", headers=bert).json() == []
    assert client.delete("/v1/portraits", headers=anna).json() == {"deleted": 1}
    assert client.get("/v1/health").status_code == 200
