"""One photo through training and through generation gives the same tensors."""

import io
import shutil
from pathlib import Path

import numpy as np
import torch
from drawn_faces import drawn_label_map
from PIL import Image

from consistentid.dataset.builder import build_dataset
from consistentid.dataset.settings import BuildSettings
from consistentid.dataset.shards import FGIDDataset
from consistentid.dataset.wording import corpus
from consistentid.faces.analysis import FaceAnalysis, FaceAnalyzer
from consistentid.faces.detection import DlibDetector
from consistentid.faces.parsing import SegformerParser
from consistentid.faces.regions import REGION_NAMES
from consistentid.generation.loading import embedded_folder
from consistentid.identity.adapter import IdentityAdapter
from consistentid.identity.conditioner import Conditioner
from consistentid.identity.config import AdapterConfig
from consistentid.identity.dlib_image_encoder import DlibImageEncoder
from consistentid.prompting.style import ALIGNED
from consistentid.training.embedded.diffusion import facial_prompt_tokenizer
from consistentid.training.embedded.models import new_text_encoder, new_tokenizer, new_unet
from consistentid.training.embedded.store import Donors, build_references, encode_reference

PROMPT = "a portrait photo of a smiling woman, blue background"


def test_training_and_generation_condition_alike(sample_photos: dict[str, Path]) -> None:
    photo = np.asarray(Image.open(sample_photos["synthetic-woman"]).convert("RGB"))
    face = DlibDetector().detect(photo)[0]
    label_map = drawn_label_map(photo.shape[:2], face.landmarks)
    analysis = FaceAnalysis(
        photo=photo,
        box=face.box,
        landmarks=face.landmarks,
        identity_embedding=face.identity_embedding,
        label_map=label_map,
        description="",
    )
    torch.manual_seed(0)
    encoder, tokenizer = DlibImageEncoder(), new_tokenizer(corpus())
    text_encoder = new_text_encoder(tokenizer).eval()
    adapter = IdentityAdapter.new(AdapterConfig.preset("embedded", caption=ALIGNED.template), new_unet())
    conditioner = Conditioner(adapter, text_encoders=[text_encoder], tokenizers=[tokenizer], image_encoder=encoder)
    generated = conditioner.condition(analysis, PROMPT)

    identity, whole, regions, present = encode_reference(photo, label_map, face.landmarks, encoder)
    ids, where = facial_prompt_tokenizer(tokenizer)(PROMPT, True)
    positions = torch.tensor([[where[name] for name in REGION_NAMES]])
    with torch.no_grad():
        text = text_encoder(ids[None]).last_hidden_state
        fused = adapter.facial_encoder(text, regions[None].float(), positions, present[None])

    assert present.all()
    assert torch.equal(generated.facial_prompts[0].ids[0], ids)
    assert torch.allclose(generated.text_only_embeds, text, atol=1e-6)
    assert torch.allclose(generated.image_features[0], whole.float(), atol=4e-3)  # stored in half precision
    assert torch.allclose(generated.prompt_embeds, fused, atol=1e-3)
    # Generation takes the recogniser's own embedding; the torch copy sees a face aligned by three points, not five.
    assert np.linalg.norm(generated.identity[0].numpy() - identity.numpy()) < 0.25


def test_references_are_cut_out_as_in_generation(tmp_path: Path, sample_photos: dict[str, Path]) -> None:
    (tmp_path / "photos").mkdir()
    shutil.copy(sample_photos["synthetic-woman"], tmp_path / "photos")
    build_dataset([tmp_path / "photos"], tmp_path / "data", settings=BuildSettings())
    record = FGIDDataset.open(tmp_path / "data")[0]
    photo, landmarks = np.asarray(record.open_photo()), np.array(record.landmarks)
    drawn, encoded = drawn_label_map(photo.shape[:2], landmarks), io.BytesIO()
    Image.fromarray(drawn).save(encoded, "PNG")
    record = record.model_copy(update={"label_map": encoded.getvalue()})  # from elsewhere
    parser, encoder = SegformerParser(embedded_folder() / "parser", offline=True), DlibImageEncoder()
    donors = Donors([], [])
    found = build_references(0, [record], variants=1, seed=0, donors=donors, parser=parser).regions[0, 0].float()

    parsed = FaceAnalyzer.from_pretrained(embedded_folder()).analyze(record.open_photo()).label_map
    wanted, unwanted = (encode_reference(photo, one, landmarks, encoder)[2].float() for one in (parsed, drawn))
    for name, seen, own, other in zip(REGION_NAMES, found, wanted, unwanted, strict=True):
        assert (seen - own).norm() < 0.05 * (seen - other).norm(), name
