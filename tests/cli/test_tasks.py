"""`consistentid generate` with tasks, masks and ControlNets, on the tiny model."""

from collections.abc import Callable
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from consistentid.generation.portrait import read_settings

Run = Callable[..., tuple[int, str, str]]
PROMPT = "a portrait of a person"


@pytest.fixture(scope="module")
def photo() -> Path:
    return Path(__file__).parents[2] / "examples/photos/official-man.jpg"


@pytest.fixture(scope="module")
def controlnet(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel.from_pretrained(model, subfolder="unet")
    folder = tmp_path_factory.mktemp("controlnet")
    diffusers.ControlNetModel.from_unet(unet).save_pretrained(folder)
    return folder


def test_a_mask_alone_means_inpainting_the_photo(run: Run, model: Path, photo: Path, tmp_path: Path) -> None:
    common = ("--model", model, "--dtype", "float32", "--steps", 2)
    code, out, err = run("generate", photo, PROMPT, *common, "--mask", "nose", "--mask-feather", 0)
    assert (code, out.strip(), err) == (0, "portrait.png", "")
    made = np.asarray(Image.open(tmp_path / "portrait.png"))
    with Image.open(photo) as image:
        before = np.asarray(image.convert("RGB").resize((56, 72), Image.Resampling.LANCZOS))
    same = (made == before).all(-1)
    assert made.shape == (72, 56, 3)
    assert 0 < (~same).sum() < same.size, "the nose changes, the rest stays"

    mask = tmp_path / "mask.png"
    Image.new("L", (225, 275), 255).save(mask)
    assert run("generate", photo, PROMPT, *common, "--mask", mask, "--out", "all.png")[0] == 0


def test_controlnets(run: Run, model: Path, photo: Path, controlnet: Path) -> None:
    common = ("--model", model, "--dtype", "float32", "--steps", 1, "--controlnet", controlnet)
    assert run("generate", photo, PROMPT, *common, "--task", "controlnet", "--image", photo)[0] == 0
    two = ("--controlnet", controlnet, "--control-image", photo, "--control-image", photo)
    assert run("generate", photo, PROMPT, *common, *two, "--task", "controlnet")[0] == 0
    inpaint = ("--task", "controlnet-inpaint", "--mask", "face", "--control-image", photo)
    assert run("generate", photo, PROMPT, *common, *inpaint)[0] == 0


def test_a_preset_and_what_wins_over_it(run: Run, model: Path, photo: Path, tmp_path: Path) -> None:
    arguments = ("--model", model, "--dtype", "float32", "--preset", "lcm", "--steps", 2, "--size", 64, 48)
    assert run("generate", photo, PROMPT, *arguments)[0] == 0
    record = read_settings(tmp_path / "portrait.png")
    assert (record.scheduler, record.guidance, record.merge_step) == ("lcm", 1.0, 1)
    assert (record.steps, record.size) == (2, (64, 48))


def test_a_lora_and_a_word(run: Run, model: Path, photo: Path, tmp_path: Path) -> None:
    save_file({"emb_params": torch.randn(1, 64)}, tmp_path / "inkstyle.safetensors")
    common = ("--model", model, "--dtype", "float32", "--steps", 1)
    code, _, err = run(
        "generate", photo, "an inkstyle portrait", *common, "--textual-inversion", "inkstyle.safetensors"
    )
    assert (code, err) == (0, "")
    assert read_settings(tmp_path / "portrait.png").facial_prompt.startswith("an inkstyle portrait")
    again = ("generate", "--like", "portrait.png", "--out", "again.png")
    assert run(*again)[0] == 0
    before, after = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("portrait", "again"))
    assert np.array_equal(before, after)
    (tmp_path / "inkstyle.safetensors").rename(tmp_path / "moved.safetensors")
    code, _, err = run(*again)
    assert code == 1
    assert "inkstyle.safetensors does not exist" in err
    (tmp_path / "moved").mkdir()
    (tmp_path / "moved.safetensors").rename(tmp_path / "moved" / "inkstyle.safetensors")
    assert run(*again, "--textual-inversion", "moved/inkstyle.safetensors")[0] == 0
    (tmp_path / "moved" / "inkstyle.safetensors").rename(tmp_path / "inkstyle.safetensors")
    code, _, err = run("generate", photo, PROMPT, *common, "--lora", "inkstyle.safetensors:0.5")
    assert code == 1
    assert "inkstyle.safetensors is no LoRA" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mask", "hiar"], "hiar does not exist, and is no automatic mask; those are"),
        (["--task", "sculpture"], "there is no task 'sculpture'"),
        (["--task", "controlnet", "--image", "{photo}"], "needs the component controlnet"),
        (["--task", "controlnet", "--controlnet", "nowhere"], "no ControlNet at nowhere"),
        (["--preset", "nothing"], "there is no preset 'nothing'"),
        (["--lora", "nowhere.safetensors"], "nowhere.safetensors does not exist"),
        (["--mask", "nowhere.png"], "nowhere.png does not exist"),
        (["--strength", "0.5"], "takes no argument strength"),
        (["--like", "portrait.png", "--mask", "face"], "--like FILE decides"),
    ],
)
def test_mistakes_are_one_sentence(run: Run, model: Path, photo: Path, arguments: list[str], message: str) -> None:
    given = [part.format(photo=photo) for part in arguments]
    code, out, err = run("generate", photo, PROMPT, "--model", model, "--offline", *given)
    assert (code, out) == (1, "")
    assert message in err
    assert err.count("\n") == 1


def test_how_the_networks_ran_is_kept(run: Run, model: Path, photo: Path, tmp_path: Path) -> None:
    common = ("--model", model, "--dtype", "float32", "--steps", 1)
    assert run("generate", photo, PROMPT, *common, "--no-channels-last", "--attention-slicing")[0] == 0
    kept = read_settings(tmp_path / "portrait.png").optimisation
    assert (kept.channels_last, kept.attention_slicing) == (False, True)
    assert run("generate", "--like", "portrait.png", "--out", "again.png")[0] == 0
    before, after = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("portrait", "again"))
    assert np.array_equal(before, after)
    code, _, err = run("generate", "--like", "portrait.png", "--vae-tiling")
    assert (code, "--like FILE decides vae-tiling" in err) == (1, True)


def test_prompt_weights(run: Run, model: Path, photo: Path, tmp_path: Path) -> None:
    common = ("--model", model, "--dtype", "float32", "--steps", 1)
    code, _, err = run("generate", photo, "a (smiling)1.3 person", *common, "--prompt-weighting")
    assert (code, err) == (0, "")
    record = read_settings(tmp_path / "portrait.png")
    assert record.prompt_weighting
    assert record.facial_prompt.startswith("a smiling person")
    assert run("generate", "--like", "portrait.png", "--out", "again.png")[0] == 0
    before, after = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("portrait", "again"))
    assert np.array_equal(before, after)
