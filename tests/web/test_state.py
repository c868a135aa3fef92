"""Analyses, models, health, readiness, metrics, configuration, and the description of it all."""

import base64
import logging
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from consistentid.errors import InvalidSettings
from consistentid.web.config import ServerConfig


def test_an_analysis_shows_every_face_and_stores_nothing(
    client: TestClient, photo: bytes, other_photo: bytes, config: ServerConfig
) -> None:
    both = Image.new("RGB", (640, 320), "white")
    both.paste(Image.open(BytesIO(photo)).resize((320, 320)), (0, 0))
    both.paste(Image.open(BytesIO(other_photo)).resize((320, 320)), (320, 0))
    content = BytesIO()
    both.save(content, "PNG")
    answer = client.post("/v1/analyses", files={"photo": ("x", content.getvalue())}, data={"face": "right"})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["size"], len(found["faces"])) == ([640, 320], 2)
    assert found["box"][0] > 320
    assert set(found["regions"]) >= {"face", "eyes", "nose", "mouth"}
    assert "eyes" in found["caption"]
    assert "embedding" not in answer.text
    assert not any((config.store / "files").iterdir())


def test_a_face_that_is_not_there(client: TestClient, photo: bytes) -> None:
    body = {"photo": base64.b64encode(photo).decode(), "face": 3}
    problem = client.post("/v1/analyses", json=body).json()
    assert problem["type"] == "urn:consistentid:problem:face-not-selected"


def test_models_health_and_readiness(client: TestClient) -> None:
    [model] = client.get("/v1/models").json()["models"]
    assert (model["name"], model["base"], model["steps"]) == ("embedded", "embedded", 30)
    assert client.get("/v1/health").json() == {"status": "ok"}
    assert client.get("/v1/ready").json() == {"status": "ready", "workers": 1, "queued": 0}
    client.app.state.service.drain()  # type: ignore[attr-defined]
    assert client.get("/v1/ready").status_code == 503
    assert client.get("/v1/health").status_code == 200


def test_metrics_and_logs_hold_nothing_of_a_person(
    client: TestClient, submit: Any, ended: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        location = submit(client, prompt="Annegret at the sea")
        assert ended(client, location)["state"] == "succeeded"
        client.get(f"{location}/images/0")
    text = client.get("/v1/metrics").text
    assert 'consistentid_job_seconds_count{state="succeeded"} 1.0' in text
    assert 'route="/v1/portraits/{id}/images/{index}",status="200"' in text
    own = "".join(record.getMessage() for record in caplog.records if record.name.startswith("consistentid"))
    for secret in ("Annegret", location.rpartition("/")[2], "127.0.0.1"):
        assert secret not in text + own


def test_errors_are_problems_everywhere(client: TestClient) -> None:
    for answer, status in (
        (client.get("/v1/nothing"), 404),
        (client.get("/v1/portraits/../../etc/passwd"), 404),
        (client.put("/v1/portraits"), 405),
        (client.get("/v1/portraits/xyz"), 422),
        (client.get(f"/v1/portraits/{'0' * 32}/events"), 404),
        (client.post("/v1/portraits", content=b"x", headers={"content-type": "text/plain"}), 415),
        (client.post("/v1/portraits", content=b"\xff{", headers={"content-type": "application/json"}), 422),
        (client.post("/v1/portraits", files={"photo": ("x", b"")}), 400),
        (client.post("/v1/portraits", content=b"x", headers={"content-type": "multipart/form-data"}), 400),
        (client.post("/v1/portraits", content=bytes(20_000_001), headers={"content-type": "application/json"}), 413),
    ):
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
        problem = answer.json()
        assert problem["status"] == status
        assert "Traceback" not in problem["detail"]


def test_only_this_machine_may_ask_without_keys(client: TestClient) -> None:
    assert client.get("/v1/portraits", headers={"Host": "evil.example"}).status_code == 403
    assert client.get("/v1/portraits", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert client.get("/v1/portraits", headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200


def test_one_client_may_not_ask_for_everything(serve: Any, photo: bytes) -> None:
    client = serve(rate="2/minute")
    answers = [client.post("/v1/analyses", files={"photo": ("x", b"no photo")}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [422, 422, 429]
    assert 1 <= int(answers[2].headers["retry-after"]) <= 60


def test_the_description_declares_problems_and_bodies(client: TestClient) -> None:
    schema = client.get("/v1/openapi.json").json()
    assert "HTTPValidationError" not in str(schema)
    post = schema["paths"]["/v1/portraits"]["post"]
    assert set(post["requestBody"]["content"]) == {"application/json", "multipart/form-data"}
    assert set(post["responses"]) == {"202", "400", "401", "403", "413", "415", "422", "429", "503"}
    for path in schema["paths"].values():
        for operation in path.values():
            for status, answer in operation["responses"].items():
                if status >= "400":
                    assert set(answer["content"]) == {"application/problem+json"}
    settings = schema["components"]["schemas"]["PortraitSubmission"]["properties"]
    assert {"photo", "prompt", "seed", "weights", "merge_step"} <= set(settings)


def test_keys_are_needed_beyond_loopback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidSettings, match=r"host 0\.0\.0\.0 can be reached from other machines"):
        ServerConfig.load(host="0.0.0.0")
    monkeypatch.setenv("CONSISTENTID_SERVE_API_KEYS", "first, second")
    assert ServerConfig.load(host="0.0.0.0").keys() == ("first", "second")
    file = tmp_path / "serve.yaml"
    file.write_text("port: 1\nbatch_size: 4\n")
    monkeypatch.setenv("CONSISTENTID_SERVE_BATCH_SIZE", "2")
    config = ServerConfig.load(file, port=3)
    assert (config.port, config.batch_size) == (3, 2)
    assert "first" not in repr(config)
    file.write_text("prot: 1\n")
    with pytest.raises(InvalidSettings, match="prot: is no known setting"):
        ServerConfig.load(file)
