"""The example workflows through ComfyUI's server, from photo to PNG, with weights it recognises as SD 1.5.

`python main.py --cpu` runs as users run it, with our folder linked into `custom_nodes`. The U-Net is as wide as SD 1.5
but has few layers, the text encoder is whole; all weights are random.
"""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytestmark = [pytest.mark.slow, pytest.mark.enable_socket]
ROOT = Path(__file__).parents[2]
WORKFLOWS = ROOT / "comfyui" / "example_workflows"
NAMES = ("portrait", "regions-and-mixing", "two-people")
STEPS, SIDE, SEED = 2, 64, 3


@pytest.fixture(scope="module")
def server(home: Path, nodes: Any, tmp_path_factory: pytest.TempPathFactory, sample_photos: dict[str, Path]) -> Any:
    """A running ComfyUI: its folder, what it knows of its nodes, and how to post a workflow."""
    import comfy_twins as models

    folder = tmp_path_factory.mktemp("comfyui")
    pipeline, adapter = models.slim_sd15(folder)
    (folder / "custom_nodes").mkdir()
    (folder / "custom_nodes" / "ComfyUI-ConsistentID").symlink_to(ROOT / "comfyui")
    (folder / "input").mkdir()
    photos = [sample_photos["official-man"], sample_photos["synthetic-woman"]]
    for name, photo in zip(("your-photo.jpg", "another-photo.jpg"), photos, strict=True):
        (folder / "input" / name).write_bytes(photo.read_bytes())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (folder / "log.txt").open("w")
    command = [sys.executable, str(home / "main.py"), "--cpu", "--port", str(port), "--base-directory", str(folder)]
    process = subprocess.Popen(
        [*command, "--disable-api-nodes", "--disable-auto-launch", "--database-url", "sqlite:///:memory:"],
        cwd=home, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip

    def call(path: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}{path}", None if body is None else json.dumps(body).encode()
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)

    try:
        info = _when_ready(call, process, folder / "log.txt")
        yield SimpleNamespace(folder=folder, call=call, info=info, pipeline=pipeline, adapter=adapter)
    finally:
        process.terminate()
        process.wait(60)
        log.close()


def _when_ready(call: Callable[..., Any], process: Any, log: Path) -> Any:
    for _ in range(600):
        try:
            return call("/object_info")
        except (urllib.error.URLError, ConnectionError):
            assert process.poll() is None, log.read_text()[-3000:]
            time.sleep(1)
    raise AssertionError(log.read_text()[-3000:])


def workflow(name: str) -> dict[str, Any]:
    """An example with the weights of this test, small and quick; without the image encoder they do not need."""
    made: dict[str, Any] = json.loads((WORKFLOWS / "api" / f"{name}.json").read_text())
    changes = {
        "ckpt_name": "slim.safetensors", "adapter": "mine/adapter.safetensors", "steps": STEPS, "cfg": 3.0,
        "seed": SEED,
    }  # fmt: skip
    made = {number: node for number, node in made.items() if node["class_type"] != "CLIPVisionLoader"}
    for node in made.values():
        inputs = node["inputs"]
        inputs.pop("clip_vision", None)
        inputs.update({key: value for key, value in changes.items() if key in inputs})
        if node["class_type"] == "EmptyLatentImage":
            inputs.update(width=SIDE, height=SIDE)
    return made


def posted(server: Any, prompt: dict[str, Any]) -> Any:
    """What ComfyUI says of a workflow that it has run."""
    number = server.call("/prompt", {"prompt": prompt})["prompt_id"]
    for _ in range(600):
        history = server.call(f"/history/{number}")
        if number in history:
            return history[number]
        time.sleep(1)
    raise AssertionError("ComfyUI did not finish")


def picture(server: Any, done: Any) -> np.ndarray:
    assert done["status"]["status_str"] == "success", done["status"]
    saved = [image for output in done["outputs"].values() for image in output.get("images", ())]
    (file,) = [image["filename"] for image in saved if image["type"] == "output"]
    return np.asarray(Image.open(server.folder / "output" / file))


def ours(server: Any) -> np.ndarray:
    """The same portrait by our own pipeline."""
    from consistentid.faces.analysis import FaceAnalyzer
    from consistentid.generation.generator import PortraitGenerator
    from consistentid.generation.loading import embedded_folder

    made = workflow("portrait").values()
    asked = next(node["inputs"] for node in made if node["class_type"] == "ConsistentIDApply")
    scheduler = server.pipeline.scheduler
    scheduler.set_timesteps(STEPS)
    sigma = float(scheduler.sigmas[0])
    noise = torch.randn(1, 4, SIDE // 8, SIDE // 8, generator=torch.Generator().manual_seed(SEED))
    generator = PortraitGenerator(
        server.pipeline, server.adapter, analyzer=FaceAnalyzer.from_pretrained(embedded_folder())
    )
    return np.asarray(generator.generate(
        server.folder / "input" / "your-photo.jpg", asked["prompt"], negative_prompt=asked["negative_prompt"],
        latents=noise * sigma / (sigma**2 + 1) ** 0.5, steps=STEPS, guidance=3.0, scheduler="euler", size=(SIDE, SIDE),
    )[0].image)  # fmt: skip


def test_the_servers_picture_is_our_pipelines(server: Any) -> None:
    done = posted(server, workflow("portrait"))
    found = picture(server, done).astype(int)
    shown = next(output["text"] for output in done["outputs"].values() if "text" in output)
    assert "nose [nose]" in shown[0]
    expected = ours(server).astype(int)
    assert expected.std() > 20
    assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize("name", NAMES[1:])
def test_the_other_examples_run(server: Any, name: str) -> None:
    assert picture(server, posted(server, workflow(name))).std() > 20


@pytest.mark.parametrize("name", NAMES)
def test_both_formats_of_an_example_are_one(server: Any, name: str) -> None:
    drawn = json.loads((WORKFLOWS / f"{name}.json").read_text())
    written = json.loads((WORKFLOWS / "api" / f"{name}.json").read_text())
    for node in written.values():
        node.pop("_meta")
    assert {str(node["id"]): _as_api(node, drawn["links"], server.info) for node in drawn["nodes"]} == written


def _as_api(node: Any, links: Any, info: Any) -> Any:
    """A node of the drawn format as ComfyUI's page posts it."""
    known = info[node["type"]]["input"]
    sources = {link[0]: [str(link[1]), link[2]] for link in links}
    inputs = {one["name"]: sources[one["link"]] for one in node["inputs"] if one["link"] is not None}
    values = iter(node["widgets_values"])
    for name, spec in {**known.get("required", {}), **known.get("optional", {})}.items():
        if isinstance(spec[0], list) or spec[0] in {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}:
            inputs[name] = next(values)
            if name == "seed":
                assert next(values) == "fixed"
    return {"class_type": node["type"], "inputs": inputs}


def test_a_refusal_reaches_the_page_as_one_sentence(server: Any) -> None:
    made = workflow("portrait")
    made["1"]["inputs"]["ckpt_name"] = "slim.safetensors"
    weights = next(node for node in made.values() if node["class_type"] == "ConsistentIDLoad")
    weights["inputs"]["adapter"] = "embedded"
    done = posted(server, made)
    assert done["status"]["status_str"] == "error"
    message = next(data["exception_message"] for kind, data in done["status"]["messages"] if kind == "execution_error")
    assert "width 768" in message
    assert message.strip().count("\n") == 0
