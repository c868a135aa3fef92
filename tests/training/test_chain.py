"""The whole chain on the two sample photos, a step or two each: what it writes is a model that generates."""

import shutil
from pathlib import Path

import pytest
from diffusers import AutoencoderTiny
from PIL import Image
from transformers import CLIPTokenizer, SegformerForSemanticSegmentation

from consistentid.errors import InvalidData
from consistentid.faces.regions import REGION_NAMES
from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.loading import embedded_folder
from consistentid.identity.config import AdapterConfig
from consistentid.identity.dlib_image_encoder import DlibImageEncoder
from consistentid.training.embedded.diffusion import finished_models
from consistentid.training.embedded.export import export_model
from consistentid.training.loop import Validation
from consistentid.training.run import load_config, run

TINY_LOOP = {"steps": 1, "warmup_steps": 1, "checkpoint_every": 1, "mixed_precision": "no"}

_STRENGTHS = {"face": 0.35, "ears": 0.4, "eyes": 0.45, "nose": 0.35, "mouth": 0.25}


def test_photos_become_a_model_that_generates(tmp_path: Path, root: Path, sample_photos: dict[str, Path]) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for path in sample_photos.values():
        shutil.copy(path, photos)
    (photos / "broken.jpg").write_bytes(b"no image")
    config = load_config(_tiny(tmp_path / "tiny.yaml", root / "configs" / "embedded.yaml"))
    seen: list[Path] = []

    def portraits(folder: Path) -> Validation:
        seen.append(folder)
        return Validation(picture=Image.new("RGB", (8, 8)))

    config = config.model_copy(update={"photos": photos, "out": tmp_path / "out"})
    model = run(config, portraits=portraits)

    assert "broken.jpg" in (tmp_path / "out" / "dataset" / "rejected.jsonl").read_text()
    assert len(seen) == 4  # before the first step of both stages and after the last
    generator = PortraitGenerator.from_pretrained(model)
    portrait = generator.generate(sample_photos["official-man"], "a portrait photo of a man", steps=2)[0]
    assert portrait.image.size == (128, 128)
    assert generator.adapter.config.region_strength == config.region_strength == _STRENGTHS
    assert set(portrait.settings.regions_used) <= set(REGION_NAMES)
    weights = (model / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()

    run(config)  # every stage is finished: nothing is trained again
    assert (model / "unet" / "diffusion_pytorch_model.safetensors").read_bytes() == weights

    for stage in ("joined", "anchored"):  # killed before their first checkpoints, the stages before them done
        shutil.rmtree(tmp_path / "out" / stage)
    together = config.store.model_copy(update={"processes": 2})
    run(config.model_copy(update={"store": together}))
    assert len(list((tmp_path / "out" / "store").iterdir())) == 1
    assert (model / "unet" / "diffusion_pytorch_model.safetensors").read_bytes() == weights


def test_models_trained_further_end_with_their_strength(tmp_path: Path) -> None:
    folder = embedded_folder()
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    models = finished_models(folder, tokenizer, encoder=DlibImageEncoder())
    autoencoder = AutoencoderTiny.from_pretrained(folder / "vae")
    parser = SegformerForSemanticSegmentation.from_pretrained(folder / "parser")
    for asked, found in ((None, _STRENGTHS), ({"eyes": 1.2}, {"eyes": 1.2})):
        export_model(
            tmp_path / "model",
            models=models,
            autoencoder=autoencoder,
            tokenizer=tokenizer,
            parser=parser,
            region_strength=asked,
        )
        assert AdapterConfig.load(tmp_path / "model" / "adapter" / "config.json").region_strength == found


def test_fresh_without_a_start_is_refused(tmp_path: Path, root: Path) -> None:
    config = tmp_path / "fresh.yaml"
    config.write_text((root / "configs" / "embedded.yaml").read_text() + "fresh: true\n")
    with pytest.raises(InvalidData, match="name its folder or drop fresh"):
        load_config(config)


def test_omissions_without_appearance_are_refused(tmp_path: Path, root: Path) -> None:
    config = tmp_path / "blind.yaml"
    config.write_text((root / "configs" / "embedded.yaml").read_text().replace("appearance: true", "appearance: false"))
    with pytest.raises(InvalidData, match="set appearance: true"):
        load_config(config)


def test_steps_that_train_nothing_are_refused(tmp_path: Path, root: Path) -> None:
    parts = "train: [base, text_encoder, projector, kv, facial_encoder]"
    config = tmp_path / "adapter.yaml"
    config.write_text((root / "configs" / "embedded.yaml").read_text().replace(parts, "train: [kv, facial_encoder]"))
    with pytest.raises(InvalidData, match="train base or text_encoder, or set it to 0"):
        load_config(config)


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("shown: {ears: 0.8", "shown: {chin: 0.8", "anchored.shown: Value error, unknown region 'chin'"),
        ("new: []", "new: [chin]", "anchored.new.0: Input should be 'face', 'ears', 'eyes', 'nose' or 'mouth'"),
        ("regions_only: 0.03}", "regions_alone: 0.03}", "anchored.drop.regions_alone: Extra inputs are not permitted"),
        ("omissions: 20}", "omission: 20}", "losses.step.omission: Extra inputs are not permitted"),
    ],
)
def test_what_is_wrong_in_a_stage_is_said_of_its_own_kind(
    tmp_path: Path, root: Path, right: str, wrong: str, said: str
) -> None:
    shipped = (root / "configs" / "embedded.yaml").read_text()
    assert shipped.count(right) == 1
    (config := tmp_path / "wrong.yaml").write_text(shipped.replace(right, wrong))
    with pytest.raises(InvalidData) as refused:
        load_config(config)
    assert said in str(refused.value)
    assert "Field required" not in str(refused.value)


def _tiny(target: Path, source: Path) -> Path:
    """The shipped configuration with one step a stage, and a stage of each kind on the U-Net, which have all losses."""
    import yaml

    values = yaml.safe_load(source.read_text())
    values["diffusion"] = {name: values["diffusion"][name] for name in ("joined", "anchored")}
    for stage in (
        values["autoencoder"],
        values["parser"],
        values["decoder"],
        values["text"],
        values["tokens"],
        *values["diffusion"].values(),
    ):
        stage["batch_size"] = 2
        stage["loop"] |= TINY_LOOP
    for stage in values["diffusion"].values():
        stage["loop"] |= {"validate_every": 1}
    values["threads"] = 1
    values["store"] = {"target_variants": 2, "composite_variants": 2, "reference_variants": 2, "processes": 1}
    target.write_text(yaml.safe_dump(values))
    assert load_config(target).store.processes == 1
    return target
