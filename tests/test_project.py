"""What the README and the configurations say is true."""

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "consistentid"
EXAMPLE = (ROOT / "examples" / "generate.py").read_text()


def tree(readme: str) -> set[Path]:
    """Paths of the file tree in the README: two spaces deeper is one folder deeper."""
    block = re.search(r"```text\n(src/consistentid/\n.*?)```", readme, re.DOTALL)
    assert block, "the README has no file tree"
    folders: list[Path] = []
    paths = set()
    for line in block.group(1).splitlines():
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        path = folders[depth - 1] / name if depth else Path(name)
        folders[depth:] = [path]
        paths.add(path)
    return paths


def test_readme_lists_every_source_file() -> None:
    listed = tree((ROOT / "README.md").read_text())
    missing = [path for path in listed if not (ROOT / path).exists()]
    assert not missing, f"listed in the README, but not there: {missing}"
    there = {path.relative_to(ROOT) for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"}
    assert not there - listed, f"not listed in the README: {sorted(there - listed)}"


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_the_example_is_the_one_of_the_examples(page: str) -> None:
    assert EXAMPLE in (ROOT / page).read_text()


def test_sample_photos_state_their_licence() -> None:
    table = (ROOT / "examples" / "photos" / "README.md").read_text()
    photos = sorted((ROOT / "examples" / "photos").glob("*.jpg"))
    assert photos
    assert all(f"`{photo.name}`" in table for photo in photos)


def test_example_jobs_name_existing_photos() -> None:
    jobs = [json.loads(line) for line in (ROOT / "examples" / "jobs.jsonl").read_text().splitlines()]
    assert len({job["name"] for job in jobs}) == len(jobs)
    assert all((ROOT / "examples" / job["photo"]).is_file() for job in jobs)


def test_help_lists_the_verbs_quickly() -> None:
    command = [sys.executable, "-c", "from consistentid.cli.app import main; main()", "--help"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    computed = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    for verb in ("generate", "analyze", "train", "doctor"):
        assert re.search(rf"\b{verb}\b", done.stdout), f"{verb} is not listed"
    assert computed < 1.5  # seconds of a core, so that a busy machine does not matter; 0.5 s on a quiet one


def test_help_imports_no_heavy_library() -> None:
    code = (
        "import sys\nfrom consistentid.cli.app import main\nsys.argv = ['consistentid', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'dlib', 'cv2', 'peft'} & set(sys.modules)\n"
        "sys.exit(f'imported: {sorted(heavy)}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=os.environ)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_configuration_can_be_read(path: Path) -> None:
    if path.name == "evaluate.yaml":
        from consistentid.evaluation.config import load_config as load_evaluation

        assert load_evaluation(path).protocol
        return
    if path.name == "server.yaml":
        from consistentid.web.config import ServerConfig

        assert ServerConfig.load(path).model
        return
    if path.name == "serve.yaml":  # Ray Serve's own format
        assert yaml.safe_load(path.read_text())["applications"]
        return
    from consistentid.training.run import load_config

    assert load_config(path).kind in {"embedded", "adapter"}


def test_the_embedded_weights_are_small_safetensors() -> None:
    files = [path for path in (PACKAGE / "embedded").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 60e6
    assert not [path.name for path in files if path.suffix in {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".msgpack"}]
