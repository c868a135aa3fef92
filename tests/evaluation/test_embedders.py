"""Real classes of transformers and diffusers, tiny and random, in the place of CLIP, DINO and IP-Adapter-FaceID."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from transformers import CLIPConfig, CLIPModel, ViTConfig, ViTModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from consistentid.errors import WeightsNotFound
from consistentid.evaluation.config import EvaluationConfig, FaceIdConfig
from consistentid.evaluation.embedders import ClipEmbedder, DinoEmbedder, cosine
from consistentid.evaluation.face_id import FaceIdMaker
from consistentid.evaluation.facenet import FaceNetFeatures, FaceNetRecogniser
from consistentid.evaluation.judge import Judge
from consistentid.evaluation.makers import GeneratorMaker, Wanted
from consistentid.evaluation.recognisers import DetectorRecogniser, DlibRecogniser
from consistentid.evaluation.report.tables import headline_tables
from consistentid.evaluation.run import evaluate_folder
from consistentid.evaluation.worker import Worker
from consistentid.faces.detection import DlibDetector
from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.loading import embedded_folder
from consistentid.generation.settings import GenerationSettings
from consistentid.images import load_photo

PICTURES = [Image.new("RGB", (40, 30), colour) for colour in ("red", "teal", "white")]


@pytest.fixture(scope="module")
def tiny(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("tiny_for_evaluation", root / "tests/generation/tiny.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def model(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def clip(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    tokenizer = tiny.tiny_tokenizer(folder / "vocabulary")
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**sizes, "vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id}
    config = CLIPConfig(text_config=text, vision_config={**sizes, "image_size": 32, "patch_size": 8}, projection_dim=16)
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dino")
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8
    )
    ViTModel(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["clip", "dino"])
def test_neither_batch_nor_order_changes_an_embedding(kind: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    embedder = ClipEmbedder(folder) if kind == "clip" else DinoEmbedder(folder)
    together = embedder.embed(PICTURES)
    alone = np.concatenate([embedder.embed([picture]) for picture in reversed(PICTURES)])[::-1]
    assert together == pytest.approx(alone, abs=1e-5)
    assert embedder.embed([]).shape == (0, together.shape[1])
    assert len(embedder.sha256) == 64


def test_clip_has_pictures_and_texts_in_one_space(clip: Path) -> None:
    embedder = ClipEmbedder(clip)
    texts = embedder.embed_texts(["a person", "a much longer text about a face"])
    assert texts.shape[1] == embedder.embed(PICTURES).shape[1]
    assert texts[:1] == pytest.approx(embedder.embed_texts(["a person"]), abs=1e-6)
    model = CLIPModel.from_pretrained(clip)
    tokens = embedder._tokenizer("a person", return_tensors="pt")
    pixels = CLIPImageProcessorPil.from_pretrained(clip)(images=PICTURES, return_tensors="pt")
    with torch.inference_mode():
        wanted = model(**tokens, **pixels).logits_per_image[:, 0] / model.logit_scale.exp()
    assert cosine(embedder.embed(PICTURES), texts[:1]) == pytest.approx(wanted.numpy(), abs=1e-5)


def test_missing_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsNotFound, match="nothing"):
        DinoEmbedder(tmp_path / "nothing").embed(PICTURES)


def test_recognisers_tell_the_samples_apart(sample_photos: dict[str, Path]) -> None:
    detector, recogniser = DlibDetector(), DetectorRecogniser(DlibDetector("hog"))
    photos = [np.asarray(load_photo(path).reduce(2)) for path in sample_photos.values()]
    faces = [detector.detect(photo)[0] for photo in photos]
    own = DlibRecogniser()
    for photo, face in zip(photos, faces, strict=True):
        found = recogniser.embed(photo, face)
        assert found is not None
        assert np.linalg.norm(found - own.embed(photo, face)) < 0.1
    assert recogniser.embed(np.zeros_like(photos[0]), faces[0]) is None


def test_facenet_knows_a_person_again(sample_photos: dict[str, Path]) -> None:
    detector, recogniser = DlibDetector(), FaceNetRecogniser()
    photos = [np.asarray(load_photo(path).reduce(2)) for path in sample_photos.values()]
    seen = [side for photo in photos for side in (photo, np.ascontiguousarray(photo[:, ::-1]))]
    embeddings = [recogniser.embed(photo, detector.detect(photo)[0]) for photo in seen]
    similar = np.array(embeddings) @ np.array(embeddings).T
    assert similar.diagonal() == pytest.approx(np.ones(4), abs=1e-5)
    assert min(similar[0, 1], similar[2, 3]) > 0.8 > 0.5 > similar[:2, 2:].max()


def test_facenets_features_outlast_blur_and_tell_pictures_apart(sample_photos: dict[str, Path]) -> None:
    features = FaceNetFeatures()
    sharp = [load_photo(path).resize((150, 150)) for path in sample_photos.values()]
    blurred = [picture.filter(ImageFilter.GaussianBlur(1)) for picture in sharp]
    similar = cosine(features.embed(sharp)[:, None], features.embed(blurred)[None])
    assert similar.diagonal().min() > 0.9 > similar[0, 1]
    assert not features.embed([Image.new("RGB", (150, 150))]).any()
    assert features.embed([]).shape == (0, features.embed(sharp).shape[1])


def face_id_weights(unet: torch.nn.Module, path: Path) -> Path:
    """A random IP-Adapter-FaceID for embeddings of 128 numbers, in the layout of the released files."""
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * 0.2

    width = unet.config.cross_attention_dim
    projection = {
        "proj.0.weight": noise(256, 128), "proj.0.bias": noise(256), "proj.2.weight": noise(4 * width, 256),
        "proj.2.bias": noise(4 * width), "norm.weight": torch.ones(width), "norm.bias": torch.zeros(width),
    }  # fmt: skip
    layers = {}
    for index, name in enumerate(unet.attn_processors):
        if name.endswith("attn2.processor"):
            hidden = unet.get_submodule(name.removesuffix(".processor")).to_k.weight.shape[0]
            layers |= {f"{index}.to_{kind}_ip.weight": noise(hidden, width) for kind in "kv"}
    torch.save({"image_proj": projection, "ip_adapter": layers}, path)
    return path


def test_face_id_draws_the_person(
    tiny: ModuleType, model: Path, sample_photos: dict[str, Path], tmp_path: Path
) -> None:
    weights = face_id_weights(tiny.tiny_pipeline(tmp_path).unet, tmp_path / "faceid.bin")
    blank = tmp_path / "blank.png"
    Image.new("RGB", (64, 64), "grey").save(blank)
    maker = FaceIdMaker.load(
        FaceIdConfig(base=str(model), weights=weights, scale=10), device="cpu", offline=True,
        detector=DlibDetector("hog"),
    )  # fmt: skip
    settings = GenerationSettings(steps=2, guidance=2.0)
    photos = [*sample_photos.values(), blank]
    made = maker.make([Wanted(photo, "a person", 7, settings) for photo in photos])
    assert made[2].failure == "dlib hog finds no face in blank.png"
    pictures = []
    for k, one in enumerate(made[:2]):
        assert one.save is not None
        one.save(tmp_path / f"{k}.png")
        pictures.append(np.asarray(Image.open(tmp_path / f"{k}.png")))
    assert (pictures[0] != pictures[1]).any()  # same noise, same prompt, another face
    assert len(maker.identity.split()[0]) == 64
    with pytest.raises(WeightsNotFound, match=r"none\.bin"):
        FaceIdMaker.load(
            FaceIdConfig(base=str(model), weights=tmp_path / "none.bin"), device="cpu", offline=True,
            detector=DlibDetector("hog"),
        )  # fmt: skip


def test_the_generator_draws_a_batch_and_a_bad_photo_stops_nobody(
    model: Path, sample_photos: dict[str, Path], tmp_path: Path
) -> None:
    blank = tmp_path / "blank.png"
    Image.new("RGB", (64, 64), "grey").save(blank)
    maker = GeneratorMaker(PortraitGenerator.from_pretrained(model, offline=True, cache=False))
    photo = sample_photos["synthetic-woman"]
    settings = GenerationSettings(steps=2)
    made = maker.make(
        [Wanted(photo, "a person", seed, settings) for seed in (1, 2)] + [Wanted(blank, "x", 3, settings)]
    )
    assert "blank.png" in str(made[2].failure)
    for k, one in enumerate(made[:2]):
        assert one.save is not None
        one.save(tmp_path / f"{k}.png")
    assert (tmp_path / "0.png").read_bytes() != (tmp_path / "1.png").read_bytes()


def test_prompts_and_references_are_compared_by_clip(
    clip: Path, sample_photos: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "protocol.yaml").write_text(
        'about: x\nsubjects: 1\nprompts: {hat: {text: "a {person} with a hat"}}\nblocks: {all: {methods: [full]}}'
    )
    for name in ("photos/man.png", "pictures/theirs/man/hat.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        load_photo(sample_photos["official-man"]).reduce(3).save(tmp_path / name)
    embedder = ClipEmbedder(clip, name="my clip")
    config = EvaluationConfig(
        photos=tmp_path / "photos", out=tmp_path, protocol=str(tmp_path / "protocol.yaml"), recognisers=("dlib",)
    )
    worker = Worker({}, Judge.embedded(embedded_folder(), images=[embedder]), tmp_path / "cache")
    evaluation = evaluate_folder(config, worker, tmp_path / "pictures")
    (picture,) = evaluation.portraits["images"]
    assert picture.numbers["my clip image"] == pytest.approx(1)
    row = embedder.embed([load_photo(tmp_path / "photos/man.png")])[0]
    wanted = cosine(row, embedder.embed_texts(["a person with a hat"])[0])
    assert picture.numbers["my clip text"] == pytest.approx(float(wanted), abs=1e-5)
    assert picture.numbers["fgis"] == pytest.approx(1)
    columns = headline_tables(evaluation.scores)[0].columns
    assert {"my clip text", "my clip image"} <= set(columns)
