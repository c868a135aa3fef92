"""One photo through training and through generation gives the same tensors."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from consistentid.dataset.wording import corpus
from consistentid.faces.analysis import FaceAnalysis
from consistentid.faces.detection import DlibDetector
from consistentid.faces.regions import REGION_NAMES
from consistentid.identity.adapter import IdentityAdapter
from consistentid.identity.conditioner import Conditioner
from consistentid.identity.config import AdapterConfig
from consistentid.identity.dlib_image_encoder import DlibImageEncoder
from consistentid.prompting.style import ALIGNED
from consistentid.training.embedded.diffusion import facial_prompt_tokenizer
from consistentid.training.embedded.models import new_text_encoder, new_tokenizer, new_unet
from consistentid.training.embedded.store import encode_reference

PROMPT = "a portrait photo of a smiling woman, blue background"


def test_training_and_generation_condition_alike(sample_photos: dict[str, Path]) -> None:
    photo = np.asarray(Image.open(sample_photos["synthetic-woman"]).convert("RGB"))
    face = DlibDetector().detect(photo)[0]
    label_map = _drawn_label_map(photo.shape[:2], face.landmarks)
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


def _drawn_label_map(shape: tuple[int, int], landmarks: np.ndarray) -> np.ndarray:
    """Ellipses around the landmarks: enough for every region to exist."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    labels = np.zeros(shape, np.uint8)
    unit = np.linalg.norm(landmarks[1] - landmarks[0])
    left, right, nose = landmarks[:3]
    mouth = landmarks[3:].mean(0)

    def ellipse(centre: np.ndarray, width: float, height: float, label: int) -> None:
        inside = ((x - centre[0]) / (width * unit)) ** 2 + ((y - centre[1]) / (height * unit)) ** 2 < 1
        labels[inside] = label

    ellipse(nose, 1.1, 1.5, 1)
    ellipse(nose - (1.15 * unit, 0.1 * unit), 0.15, 0.3, 7)
    ellipse(nose + (1.15 * unit, -0.1 * unit), 0.15, 0.3, 8)
    for centre, width, height, label in ((left, 0.25, 0.12, 4), (right, 0.25, 0.12, 5), (nose, 0.25, 0.3, 10)):
        ellipse(centre, width, height, label)
    ellipse(mouth, 0.45, 0.18, 12)
    ellipse(mouth + (0, 0.1 * unit), 0.4, 0.12, 13)
    return labels
