"""`consistentid generate` with control over the parts of the photo, on the tiny model."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from consistentid.faces.analysis import FaceAnalyzer
from consistentid.generation import loading
from consistentid.generation.portrait import read_settings
from consistentid.identity.config import OFFICIAL_SD15, AdapterConfig

Run = Callable[..., tuple[int, str, str]]
PROMPT = "a portrait of a person"
PHOTO = Path(__file__).parents[2] / "examples/photos/official-man.jpg"


def test_weights_times_and_words(run: Run, model: Path, tmp_path: Path) -> None:
    common = ("--model", model, "--dtype", "float32", "--steps", 2)
    given = ("--weights.eyes", 0.5, "--starts.nose", 0, "--ends.identity", 0.5, "--words.mouth", "laughing")
    assert run("generate", PHOTO, PROMPT, *common, *given)[::2] == (0, "")
    record = read_settings(tmp_path / "portrait.png")
    assert record.weights == {"mouth": 0.25, "eyes": 0.5}
    assert (record.starts, record.ends, record.words) == ({"nose": 0.0}, {"identity": 0.5}, {"mouth": "laughing"})
    assert run("generate", "--like", "portrait.png", "--out", "again.png")[0] == 0
    before, after = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("portrait", "again"))
    assert np.array_equal(before, after)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--weights.hair", "1"], 1, "unknown region 'hair'; choose from face, ears, eyes, nose, mouth, identity"),
        (["--weights.eyes", "1.7"], 2, "weights.eyes: Input should be less than or equal to 1.5"),
        (["--weights.eyes", "-0.1"], 2, "weights.eyes: Input should be greater than or equal to 0"),
        (["--starts.eyes", "0.5", "--ends.eyes", "0.1"], 2, "eyes must end after it starts"),
        (["--explain", "heat.jpg"], 1, "heat.jpg: this picture is saved as .png"),
        (["--device", "gpu"], 1, "device 'gpu' cannot be used here; choose cpu, cuda or mps"),
        (["--device", "xpu:7"], 1, "device 'xpu:7' cannot be used here"),
        (["--words.face", "big lips"], 1, "the words 'big lips' for face name mouth"),
    ],
)
def test_mistakes_are_one_sentence(run: Run, model: Path, arguments: list[str], code: int, message: str) -> None:
    found, out, err = run("generate", PHOTO, PROMPT, "--model", model, "--offline", *arguments)
    assert (found, out) == (code, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_photo_that_hides_the_ears(run: Run, tmp_path: Path) -> None:
    """With the embedded model's own parser: hair is painted over the one ear that the photo shows."""
    with Image.open(PHOTO.with_name("synthetic-woman.jpg")) as photo:
        hidden = photo.convert("RGB")
    hidden.paste((20, 15, 12), (333, 179, 386, 274))
    hidden.save(tmp_path / "hair.png")
    common = ("--offline", "--weights.ears", 1.2)
    said = "consistentid: ears cannot be controlled: hair.png shows no ears\n"
    assert run("generate", "hair.png", PROMPT, *common) == (1, "", said)
    said = "consistentid: ears cannot be controlled: hair.png, the photo of person 2, shows no ears\n"
    assert run("generate", PHOTO, PROMPT, "--beside", "hair.png", *common) == (1, "", said)


def test_parts_of_others_and_a_morph(run: Run, model: Path, tmp_path: Path) -> None:
    woman = PHOTO.with_name("synthetic-woman.jpg")
    common = ("--model", model, "--dtype", "float32", "--steps", 1, "--blend-with", woman)
    assert run("generate", PHOTO, PROMPT, *common, "--parts.eyes", woman, "--blend", 0.2)[::2] == (0, "")
    record = read_settings(tmp_path / "portrait.png")
    assert [one.role for one in record.donors] == ["eyes", "blend"]
    assert run("generate", "--like", "portrait.png", "--out", "again.png")[0] == 0
    before, after = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("portrait", "again"))
    assert np.array_equal(before, after)
    code, out, _ = run("generate", PHOTO, PROMPT, *common, "--morph", 3, "--sheet", "strip.png")
    assert (code, out.split()) == (0, ["portrait_0.png", "portrait_1.png", "portrait_2.png", "strip.png"])
    assert "--like FILE decides morph" in run("generate", "--like", "portrait.png", "--morph", 3)[2]


def test_several_photos_with_a_stranger(
    run: Run, model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    woman = PHOTO.with_name("synthetic-woman.jpg")
    common = ("--model", model, "--dtype", "float32", "--steps", 1, "--combine", "concatenate")
    assert run("generate", PHOTO, PROMPT, *common, "--same", PHOTO, "--same", woman)[0] == 0
    assert "synthetic-woman.jpg shows someone else than the other photos and is left out" in caplog.messages
    record = read_settings(tmp_path / "portrait.png")
    assert [Path(one.photo).name for one in record.donors] == [PHOTO.name, woman.name]
    assert record.left_out == (2,)
    assert run("generate", "--like", "portrait.png", "--out", "again.png")[0] == 0
    assert read_settings(tmp_path / "again.png").left_out == (2,)
    before, after = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("portrait", "again"))
    assert np.array_equal(before, after)


def test_manners(run: Run, model: Path, tmp_path: Path) -> None:
    common = ("--model", model, "--dtype", "float32", "--steps", 1)
    code, out, _ = run("generate", PHOTO, PROMPT, *common, "--explain", "heat.png", "--out", "explained.png")
    assert code == 0
    assert out.splitlines()[0].startswith("heat.png: localisation ")
    assert (tmp_path / "heat.png").is_file()
    assert (tmp_path / "explained.png").is_file()
    assert run("generate", PHOTO, PROMPT, *common, "--into", PHOTO, "--mask", "nose")[0] == 1, "no step is run"
    assert (
        run("generate", PHOTO, PROMPT, *common[:-1], 2, "--into", PHOTO, "--mask", "nose", "--out", "into.png")[0] == 0
    )
    assert Image.open(tmp_path / "into.png").size == Image.open(PHOTO).size
    code, _, err = run("generate", PHOTO, PROMPT, *common, "--explain", "heat.png", "--best-of", 2)
    assert (code, "--best-of and --explain cannot be combined" in err) == (1, True)


def test_who_is_replaced_in_a_picture_of_two(run: Run, model: Path, tmp_path: Path) -> None:
    """Only the side of the chosen face changes."""
    picture = Image.new("RGB", (820, 300), "grey")
    for name, left in (("official-man", 30), ("synthetic-woman", 540)):
        with Image.open(PHOTO.with_name(f"{name}.jpg")) as one:
            picture.paste(one.convert("RGB").resize((250, 300)), (left, 0))
    picture.save(tmp_path / "two.png")
    common = ("--model", model, "--dtype", "float32", "--steps", 2, "--into", "two.png")
    changed = {}
    for face in ("left", "right", "left:1", 0):
        assert run("generate", PHOTO, PROMPT, *common, "--into-face", face, "--out", "into.png")[::2] == (0, "")
        after = np.asarray(Image.open(tmp_path / "into.png"))
        changed[face] = (after != np.asarray(picture)).any((0, 2))
    assert changed["left"][:410].any()
    assert not changed["left"][410:].any()
    assert changed["right"][410:].any()
    assert not changed["right"][:410].any()
    assert np.array_equal(changed["left:1"], changed["right"])
    assert run("generate", PHOTO, PROMPT, *common, "--out", "into.png")[0] == 0
    largest = (np.asarray(Image.open(tmp_path / "into.png")) != np.asarray(picture)).any((0, 2))
    assert np.array_equal(changed[0], largest), "as without a choice"
    code, out, err = run("generate", PHOTO, PROMPT, *common, "--into-face", "left:2")
    assert (code, out) == (1, "")
    assert err == "consistentid: face left:2 is not in two.png, where 2 faces are found; count from 0\n"


@pytest.mark.parametrize("other", [(), ("--like", "portrait.png"), ("--best-of", 2)])
def test_who_is_replaced_needs_a_picture(run: Run, other: tuple[object, ...]) -> None:
    said = "--into-face says who is replaced in the picture --into; give that too, or leave it out"
    assert run("generate", PHOTO, PROMPT, "--into-face", 0, *other) == (1, "", f"consistentid: {said}\n")


def test_several_people(run: Run, model: Path, tmp_path: Path) -> None:
    woman = PHOTO.with_name("synthetic-woman.jpg")
    common = ("--model", model, "--dtype", "float32", "--steps", 1, "--beside", woman)
    places = ("--size", 128, 64, "--places", "0,0,0.5,1", "--places", "0.5,0,1,1")
    words = ("--clauses", "a man", "--clauses", "a smiling woman")
    assert run("generate", PHOTO, "a portrait of {person}", *common, *places, *words)[::2] == (0, "")
    record = read_settings(tmp_path / "portrait.png")
    assert (record.places, record.clauses) == (("0,0,0.5,1", "0.5,0,1,1"), ("a man", "a smiling woman"))
    assert Image.open(tmp_path / "portrait.png").size == (128, 64)
    assert run("generate", "--like", "portrait.png", "--out", "again.png")[0] == 0
    before, after = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("portrait", "again"))
    assert np.array_equal(before, after)
    code, out, err = run("generate", PHOTO, PROMPT, *common, *places[:-1], "0.4,0,1,1")
    assert (code, out, err) == (1, "", "consistentid: places 1 and 2 overlap; move one of them\n")


def test_attention_of_a_photo(run: Run, model: Path, tmp_path: Path) -> None:
    assert run("analyze", PHOTO, "--model", model, "--attention")[::2] == (0, "")
    assert "localisation" in (tmp_path / "official-man.analysis.json").read_text()
    assert Image.open(tmp_path / "official-man.attention.png").width > 160


@pytest.fixture
def released(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A base model without adapter and parser, and an adapter as it is released, with its face networks beside it.

    The networks that the package does not have are those of the tiny model.
    """
    base, folder = tmp_path / "base", tmp_path / "released"
    shutil.copytree(model, base, ignore=shutil.ignore_patterns("adapter", "parser"))
    shutil.copytree(model / "adapter", folder)
    config = AdapterConfig.load(folder / "config.json")
    config = config.model_copy(update={"mode": "official", "quirks": OFFICIAL_SD15})
    (folder / "config.json").write_text(config.to_json())
    (folder / "face_parsing.pth").touch()
    finder = FaceAnalyzer.from_pretrained(model)
    monkeypatch.setattr(loading, "arcface_detector", lambda **_: finder.detector)
    monkeypatch.setattr(loading, "BisenetParser", lambda *_, **__: finder.parser)
    return base, folder


def test_attention_with_whatever_generate_loads(run: Run, released: tuple[Path, Path], tmp_path: Path) -> None:
    base, adapter = released
    whole = ("--model", base, "--adapter", adapter, "--device", "cpu", "--dtype", "float32", "--offline")
    assert run("generate", PHOTO, PROMPT, *whole, "--steps", 1)[::2] == (0, "")
    code, out, err = run("analyze", PHOTO, *whole, "--attention", "--face", "left")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["localisation"].keys() <= found["regions"].keys()
    assert found["description"] is None, "the generator's own analyzer has no describer"
    assert (tmp_path / "official-man.attention.png").is_file()
    code, _, err = run("analyze", PHOTO, "--model", base, "--attention")
    assert (code, "base has no folder `adapter`" in err) == (1, True)


@pytest.mark.parametrize("option", [("--adapter", "x"), ("--dtype", "float32"), ("--vae-tiling",), ("--lora", "x")])
def test_what_is_of_the_whole_model_needs_attention(run: Run, model: Path, option: tuple[str, ...]) -> None:
    said = f"consistentid: {option[0]} is for the whole model; ask for --attention too, or leave it out\n"
    assert run("analyze", PHOTO, "--model", model, *option) == (1, "", said)
