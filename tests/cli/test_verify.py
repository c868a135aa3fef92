"""`consistentid verify`, `certificate`, and the options of `generate` that are about trust."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

Run = Callable[..., tuple[int, str, str]]
PROMPT = "a portrait of a person"


@pytest.fixture(autouse=True)
def _own_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSISTENTID_CONFIG", str(tmp_path / "configuration"))


def test_from_a_portrait_to_its_verdict(run: Run, model: Path, sample_photos: dict[str, Path], tmp_path: Path) -> None:
    assert run("certificate", "Jane's studio")[0] == 0
    code, out, _ = run(
        "generate", sample_photos["official-man"], PROMPT, "--model", model, "--steps", 1, "--consent", "stated",
        "--watermark", "--private", "--audit-log", "audit.jsonl", "--safety-checker", "none", "--out", "portrait.webp",
    )  # fmt: skip
    assert (code, out) == (0, "portrait.webp\n")
    assert PROMPT not in Path("portrait.webp").read_bytes().decode("latin-1")
    (line,) = map(json.loads, Path("audit.jsonl").read_text().splitlines())
    assert (line["event"], line["consent"]) == ("saved", "stated")
    code, out, _ = run("verify", "portrait.webp")
    assert code == 0
    assert "as it was saved" in out
    assert "valid, by Jane's studio, whom you trust" in out
    assert "a new picture by a trained model" in out
    assert "stated" in out
    with Image.open("portrait.webp") as image:
        image.save("copy.jpg")
    assert run("verify", "copy.jpg")[0] in (4, 5)  # 64 px of noise by a tiny model: the mark may or may not stay
    code, out, err = run("verify", "portrait.webp", sample_photos["official-man"], "missing.png")
    assert code == 1
    assert "official-man.jpg: nothing in it can be checked" in out
    assert "missing.png does not exist" in err
    assert run("verify", sample_photos["official-man"])[0] == 5
    code, out, _ = run("verify", "--json", "portrait.webp")
    found = json.loads(out)
    assert (found["verdict"], found["is_ours"], found["credentials"]["state"]) == ("intact", True, "trusted")
    assert found["record"]["consent"] == "stated"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify"], "no file was named"),
        (["verify", "a.png", "--trust", "missing.pem"], "cannot be read"),
        (["certificate", "x" * 65], "cannot be the name"),
        (["generate", "a.jpg", PROMPT, "--certificate", "missing.pem"], "give both"),
        (["generate", "a.jpg", PROMPT, "--blocked", "missing.txt"], "missing.txt cannot be read"),
        (["generate", "a.jpg", PROMPT, "--policy", "nothing:here"], "there is no policy 'nothing:here'"),
        (["generate", "a.jpg", PROMPT, "--audit-log", "/"], "nothing is made without it"),
    ],
)
def test_refusals_are_one_sentence(run: Run, arguments: list[str], message: str) -> None:
    code, _, err = run(*arguments)
    assert code == 1
    assert message in err
    assert err.count("\n") == 1


def test_a_changed_file_has_an_exit_code_of_its_own(run: Run, model: Path, sample_photos: dict[str, Path]) -> None:
    run("generate", sample_photos["official-man"], PROMPT, "--model", model, "--steps", 1, "--safety-checker", "none")
    content = Path("portrait.png").read_bytes()
    Path("portrait.png").write_bytes(content + b"more")
    code, out, _ = run("verify", "portrait.png")
    assert code == 4
    assert "CHANGED" in out
    assert "assertion.dataHash.mismatch" in out
