import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from consistentid.errors import InvalidSettings, NotReproducible, UnreadableImage
from consistentid.faces.analysis import FaceAnalysis
from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.portrait import Portrait, read_settings
from consistentid.generation.reproduce import reproduce
from consistentid.generation.request import GenerationRequest
from consistentid.generation.settings import GenerationSettings
from consistentid.trust.provenance import GENERATED, read_label

PROMPT = "a portrait of a person"


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory, sample_photos: dict[str, Path]) -> Path:
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.open(sample_photos["synthetic-woman"]).resize((256, 256)).save(path)
    return path


@pytest.fixture(scope="module")
def saved(generator: PortraitGenerator, photo: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three portraits of two requests that shared a batch, with a scheduler that draws noise."""
    torch.set_num_threads(1)
    settings = GenerationSettings(steps=3, num_images=2, scheduler="euler_a", seed=4)
    requests = [
        GenerationRequest(photo, PROMPT, settings),
        GenerationRequest(photo, "a face", settings.model_copy(update={"num_images": 1})),
    ]
    made = [portrait for group in generator.generate_batch(requests, batch_size=3) for portrait in group]
    folder = tmp_path_factory.mktemp("saved")
    return [portrait.save(folder / f"{k}.png") for k, portrait in enumerate(made)]


def test_portraits_of_a_batch_are_made_again_bit_for_bit(generator: PortraitGenerator, saved: list[Path]) -> None:
    records = [read_settings(path) for path in saved]
    assert [record.batch_position for record in records] == [0, 1, 2]
    assert {record.batch_size for record in records} == {3}
    for path, record in zip(saved, records, strict=True):
        again = reproduce(generator, record)
        assert np.array_equal(np.asarray(again.image), np.asarray(Image.open(path))), path.name
        assert again.settings == record


def test_like_from_a_new_process(saved: list[Path], tmp_path: Path) -> None:
    target = tmp_path / "again.png"
    script = "from consistentid.cli.app import main; main()"
    command = [sys.executable, "-c", script, "generate", "--like", str(saved[1]), "--out", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with Image.open(target) as again, Image.open(saved[1]) as before:  # their signatures differ
        assert np.array_equal(np.asarray(again), np.asarray(before))
        assert again.text == before.text  # type: ignore[attr-defined]


def test_files_say_what_they_are(saved: list[Path]) -> None:
    with Image.open(saved[0]) as image:
        label = read_label(image)
    assert label is not None
    assert label.source == GENERATED
    assert read_settings(saved[0]).versions["torch"] == torch.__version__


def test_another_photo_or_other_weights_are_refused(
    generator: PortraitGenerator, saved: list[Path], photo: Path, tmp_path: Path
) -> None:
    record = read_settings(saved[0])
    changed = tmp_path / "changed.png"
    with Image.open(photo) as image:
        pixels = np.asarray(image).copy()
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(changed)
    with pytest.raises(NotReproducible, match="its pixels differ"):
        reproduce(generator, record, photo=changed)
    with pytest.raises(NotReproducible, match="no longer at"):
        reproduce(generator, record.model_copy(update={"photo": str(tmp_path / "gone.png")}))
    with pytest.raises(NotReproducible, match="weights of"):
        reproduce(generator, record.model_copy(update={"weights_sha256": "0" * 64}))
    with pytest.raises(NotReproducible, match="analysed differently"):
        reproduce(generator, record.model_copy(update={"analysis_sha256": "0" * 64}))
    with pytest.raises(NotReproducible, match="bfloat16"):
        reproduce(generator, record.model_copy(update={"dtype": "bfloat16"}))


def test_memory_photos_and_given_latents(generator: PortraitGenerator, drawn: FaceAnalysis) -> None:
    portrait = generator.generate(drawn, PROMPT, steps=1)[0]
    with pytest.raises(NotReproducible, match="in memory"):
        reproduce(generator, portrait.settings)
    again = reproduce(generator, portrait.settings, photo=drawn)
    assert np.array_equal(np.asarray(again.image), np.asarray(portrait.image))
    given = generator.generate(drawn, PROMPT, steps=1, latents=torch.zeros(1, 4, 8, 8))[0]
    with pytest.raises(NotReproducible, match="given latents"):
        reproduce(generator, given.settings, photo=drawn)


def test_weights_hash_depends_on_every_part(fresh_generator: PortraitGenerator, generator: PortraitGenerator) -> None:
    assert fresh_generator.weights_sha256 == generator.weights_sha256
    with torch.no_grad():
        next(fresh_generator.adapter.facial_encoder.parameters()).add_(1)
    del fresh_generator.renderer.__dict__["weights_sha256"]  # kept since the first time
    assert fresh_generator.weights_sha256 != generator.weights_sha256


def test_saving_is_all_or_nothing(saved: list[Path], tmp_path: Path) -> None:
    portrait = Portrait(read_settings(saved[0]), Image.new("RGB", (8, 8)))
    with pytest.raises(InvalidSettings, match=r"\.png"):
        portrait.save(tmp_path / "portrait.gif")
    occupied = tmp_path / "file"
    occupied.write_text("")
    with pytest.raises(InvalidSettings, match="cannot write"):
        portrait.save(occupied / "portrait.png")
    portrait.save(tmp_path / "deep" / "portrait.png")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["portrait.png"]
    with pytest.raises(InvalidSettings, match="left as latents"):
        replace(portrait, picture=None).save(tmp_path / "latents.png")


def test_unreadable_records(tmp_path: Path) -> None:
    plain = tmp_path / "plain.png"
    Image.new("RGB", (4, 4)).save(plain)
    with pytest.raises(NotReproducible, match="carries no record"):
        read_settings(plain)
    with pytest.raises(UnreadableImage, match="does not exist"):
        read_settings(tmp_path / "missing.png")
    broken = tmp_path / "broken.png"
    broken.write_bytes(plain.read_bytes()[:40])
    with pytest.raises(UnreadableImage):
        read_settings(broken)
