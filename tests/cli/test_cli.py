import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from consistentid.generation.portrait import read_settings

Run = Callable[..., tuple[int, str, str]]
PROMPT = "a portrait of a person"


@pytest.fixture
def photo(sample_photos: dict[str, Path]) -> Path:
    return sample_photos["official-man"]


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    script = (
        "import sys\nfrom consistentid.cli.app import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n"
        "    print([name for name in ('torch', 'diffusers', 'numpy', 'PIL', 'pydantic') if name in sys.modules])"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
    for verb in ("generate", "analyze", "train", "doctor"):
        assert verb in done.stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


@pytest.mark.parametrize("verb", ["generate", "analyze", "train", "doctor"])
def test_every_verb_has_help(run: Run, verb: str) -> None:
    code, out, _ = run(verb, "--help")
    assert code == 0
    assert verb in out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["generate"], 1, "give a photo and a prompt"),
        (["generate", "photo.jpg", PROMPT, "--steps", "0"], 2, "steps: Input should be greater than or equal to 1"),
        (["generate", "photo.jpg", PROMPT, "--merge-step", "2.5"], 2, "share of the steps"),
        (["generate", "photo.jpg", PROMPT, "--sede", "1"], 2, "--sede"),
        (["generate", "--like", "missing.png"], 1, "missing.png does not exist"),
        (["generate", "--like", "a.png", "--seed", "1"], 1, "--like FILE decides seed"),
        (["generate", "--jobs", "a.jsonl", "--steps", "3"], 1, "--jobs FILE decides steps"),
        (["generate", "--jobs", "a.jsonl"], 1, "--out FOLDER"),
        (["generate", "--jobs", "a.jsonl", "--out", "x"], 1, "cannot be read as a job file"),
        (["generate", "photo.jpg", PROMPT, "--out", "x.gif"], 1, "saved as .png"),
        (["generate", "photo.jpg", PROMPT, "--model", "nothing"], 1, "adapter"),
        (["analyze", "missing.jpg"], 1, "missing.jpg"),
        (["train", "missing.yaml"], 1, "missing.yaml does not exist"),
        (["dance"], 2, "dance"),
    ],
)
def test_mistakes_are_one_sentence(run: Run, model: Path, arguments: list[str], code: int, message: str) -> None:
    if arguments[0] == "analyze":
        arguments = [*arguments, "--model", str(model)]
    found, out, err = run(*arguments)
    assert (found, out) == (code, "")
    assert message in err
    assert err.startswith("consistentid: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_generate_sheet_and_like(run: Run, model: Path, photo: Path, tmp_path: Path) -> None:
    common = ("--model", model, "--dtype", "float32")
    code, out, err = run(
        "generate",
        photo,
        PROMPT,
        *common,
        "--num-images",
        2,
        "--steps",
        2,
        "--out",
        "made",
        "--sheet",
        "made/sheet.png",
    )
    assert (code, err) == (0, "")
    assert out.split() == ["made/portrait_0.png", "made/portrait_1.png", "made/sheet.png"]
    record = read_settings(tmp_path / "made/portrait_1.png")
    assert (record.prompt, record.steps, record.index, record.batch_size) == (PROMPT, 2, 1, 2)
    with Image.open(tmp_path / "made/sheet.png") as sheet:
        assert sheet.width > 512

    code, out, _ = run("generate", "--like", "made/portrait_1.png")
    assert (code, out.strip()) == (0, "made/portrait_1_again.png")
    before, again = (
        np.asarray(Image.open(tmp_path / f"made/{name}.png")) for name in ("portrait_1", "portrait_1_again")
    )
    assert np.array_equal(before, again)

    nobody = tmp_path / "nobody.png"
    Image.new("RGB", (128, 128)).save(nobody)
    code, _, err = run("generate", nobody, PROMPT, *common)
    assert code == 1
    assert "no face in nobody.png" in err
    code, _, err = run("generate", "--like", "made/portrait_1.png", nobody)
    assert code == 1


def test_job_file(run: Run, model: Path, photo: Path, tmp_path: Path) -> None:
    jobs = [
        {"name": "good", "photo": str(photo), "prompt": PROMPT, "steps": 1},
        {"name": "../bad", "photo": str(photo), "prompt": PROMPT},
        {"name": "lost", "photo": "lost.jpg", "prompt": PROMPT},
    ]
    path = tmp_path / "jobs.jsonl"
    path.write_text("\n".join(map(json.dumps, jobs)))
    arguments = ("generate", "--jobs", path, "--out", "made", "--model", model, "--dtype", "float32")
    code, out, err = run(*arguments)
    assert code == 1
    assert "1 done, 0 there already, 2 bad" in out
    assert "line 2: name" in err
    assert "lost: " in err
    assert [each.name for each in (tmp_path / "made").iterdir()] == ["good.png"]
    assert "0 done, 1 there already, 2 bad" in run(*arguments)[1]
    path.write_text(json.dumps(jobs[0]))
    assert run(*arguments)[0] == 0


def test_unwritable_output(run: Run, model: Path, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = run("generate", photo, PROMPT, "--steps", 1, "--model", model, "--out", "file/portrait.png")
    assert code == 1
    assert "cannot write" in err


def test_analyze(run: Run, model: Path, photo: Path, tmp_path: Path) -> None:
    code, out, _ = run("analyze", photo, "--model", model, "--out", "seen")
    assert code == 0
    found = json.loads(out)
    assert found == json.loads((tmp_path / "seen/official-man.analysis.json").read_text())
    assert found["size"] == [225, 275]
    assert len(found["landmarks"]) == 5
    assert "identity_embedding" not in found
    with Image.open(tmp_path / "seen/official-man.analysis.png") as overlay:
        assert overlay.size == (225, 275)
    assert len(json.loads(run("analyze", photo, "--model", model, "--embedding")[1])["identity_embedding"]) == 128
    assert run("analyze", photo, "--model", model, "--face", 3)[0] == 1


def test_doctor_names_everything(run: Run) -> None:
    code, out, _ = run("doctor")
    for part in ("python", "torch", "dlib-bin", "insightface", "embedded model", "mmod_human_face_detector.dat"):
        assert part in out
    assert code == int(any(line.startswith("missing") for line in out.splitlines()))


def test_photos_are_not_for_an_adapter(run: Run, root: Path, tmp_path: Path) -> None:
    code, _, said = run("train", root / "configs" / "sd15.yaml", "--photos", tmp_path)
    assert (code, said) == (1, "consistentid: --photos is not for a configuration of kind adapter\n")
