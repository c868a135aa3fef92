"""Captions: the fixed phrase, measured words, and a tiny real vision-language model."""

import logging
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from consistentid.errors import WeightsNotFound
from consistentid.faces.description import TEMPLATE, GeometryDescriber, TemplateDescriber, VisionLanguageDescriber
from consistentid.faces.detection import DetectedFace
from consistentid.faces.regions import REGION_NAMES

Drawn = tuple[np.ndarray, np.ndarray, DetectedFace]

CHAT = (
    "{% for message in messages %}USER: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}{% endfor %} {% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def test_the_template_is_the_papers_phrase(drawn_face: Drawn) -> None:
    photo, label_map, face = drawn_face
    assert TemplateDescriber().describe(photo, label_map=label_map, face=face) == TEMPLATE
    assert all(name in TEMPLATE for name in REGION_NAMES)


def caption(drawn_face: Drawn, label_map: np.ndarray, *, changing: bool = False) -> str:
    return GeometryDescriber(changing=changing).describe(drawn_face[0], label_map=label_map, face=drawn_face[2])


def test_measured_words_name_every_visible_region_once(drawn_face: Drawn) -> None:
    text = caption(drawn_face, drawn_face[1])
    for name in REGION_NAMES:
        assert len(re.findall(rf"\b{name}\b", text)) == 1, text
    assert len(text) <= 330  # longer captions are dropped by the released style
    hidden = caption(drawn_face, np.where(np.isin(drawn_face[1], (7, 8)), 17, drawn_face[1]))
    assert "ears" not in hidden
    assert caption(drawn_face, np.zeros_like(drawn_face[1])) == TEMPLATE


def test_measured_words_follow_the_shapes(drawn_face: Drawn) -> None:
    label_map = drawn_face[1]
    one_ear, one_eye = np.where(label_map == 7, 17, label_map), np.where(label_map == 4, 1, label_map)
    assert "one visible ear," in caption(drawn_face, one_ear)
    assert re.search(r"one visible (\w+ ){0,2}eye,", caption(drawn_face, one_eye))
    glasses = label_map.copy()
    glasses[112:115, 90:166] = 6
    assert "behind glasses" in caption(drawn_face, glasses)
    broad = label_map.copy()
    broad[150:170, 95:160] = 10
    assert "broad nose" in caption(drawn_face, broad)


def test_what_a_prompt_may_change_is_said_only_when_asked(drawn_face: Drawn) -> None:
    changing, fixed = (caption(drawn_face, drawn_face[1], changing=flag) for flag in (True, False))
    assert "hair" in changing
    assert not re.search("hair|smiling|serious", fixed)


def byte_tokenizer(**special: object) -> PreTrainedTokenizerFast:
    """One token per byte."""
    alphabet = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    pieces = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=pieces, **special)


@pytest.fixture(scope="module")
def tiny_llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LLaVA's real classes with a few thousand random parameters."""
    folder = tmp_path_factory.mktemp("llava")
    tokenizer = byte_tokenizer(
        bos_token="<s>", eos_token="</s>", pad_token="<pad>", additional_special_tokens=["<image>"]
    )
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}),
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT,
    )
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
        initializer_range=0.5,  # so that the answer depends on the photo
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        initializer_range=0.5,
    )
    torch.manual_seed(0)
    config = LlavaConfig(vision_config=vision, text_config=text)
    config.image_token_index = config.image_token_id = tokenizer.convert_tokens_to_ids("<image>")
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def test_a_vision_language_model_answers_on_one_line(
    tiny_llava: Path, drawn_face: Drawn, caplog: pytest.LogCaptureFixture
) -> None:
    photo, label_map, face = drawn_face
    describer = VisionLanguageDescriber(tiny_llava, offline=True, max_new_tokens=12)
    with caplog.at_level(logging.WARNING):
        answers = {describer.describe(photo, label_map=label_map, face=face) for _ in range(2)}
    (answer,) = answers
    assert isinstance(answer, str)
    assert "\n" not in answer
    assert "names no facial region" in caplog.text
    assert answer not in caplog.text
    assert describer.overall_captions([]) == []


@pytest.mark.parametrize("model", ["tiny_llava", "tiny_qwen"])
def test_a_batch_is_answered_like_its_photos_alone(
    model: str, drawn_face: Drawn, request: pytest.FixtureRequest
) -> None:
    """Photos of several sizes, which Qwen sees as several numbers of tokens."""
    describer = VisionLanguageDescriber(request.getfixturevalue(model), offline=True, max_new_tokens=12)
    photos = [drawn_face[0], drawn_face[0][40:200, ::2], 255 - drawn_face[0][::2, 60:]]
    alone = [describer.overall_captions([photo])[0] for photo in photos]
    assert len(set(alone)) > 1
    assert describer.overall_captions(photos) == alone


@pytest.fixture(scope="module")
def tiny_qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Qwen2.5-VL's real classes with a few thousand random parameters."""
    folder = tmp_path_factory.mktemp("qwen")
    special = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer = byte_tokenizer(eos_token="<|im_end|>", pad_token="<|endoftext|>", additional_special_tokens=special)
    tokenizer.chat_template = CHAT.replace("<image>", "<|vision_start|><|image_pad|><|vision_end|>")
    number = tokenizer.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "initializer_range": 0.5,  # so that the answer depends on the photo
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4},
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 16,
            "fullatt_block_indexes": [0],
            "initializer_range": 0.5,
        },
        image_token_id=number("<|image_pad|>"),
        video_token_id=number("<|video_pad|>"),
        vision_start_token_id=number("<|vision_start|>"),
        vision_end_token_id=number("<|vision_end|>"),
    )
    torch.manual_seed(0)
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    Qwen2VLImageProcessorPil().save_pretrained(folder)
    return folder


def test_a_model_that_also_knows_videos_needs_no_torchvision(tiny_qwen: Path, drawn_face: Drawn) -> None:
    answer = VisionLanguageDescriber(tiny_qwen, offline=True, max_new_tokens=6).overall_captions([drawn_face[0]])[0]
    assert isinstance(answer, str)


def test_missing_models_and_models_without_chat_are_refused(
    tiny_llava: Path, drawn_face: Drawn, tmp_path: Path
) -> None:
    photo = drawn_face[0]
    with pytest.raises(WeightsNotFound, match="no vision-language model at") as refusal:
        VisionLanguageDescriber(tmp_path / "absent", offline=True).overall_captions([photo])
    assert "\n" not in str(refusal.value)
    for file in tiny_llava.iterdir():
        if file.name != "chat_template.jinja":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(WeightsNotFound, match="has no chat template"):
        VisionLanguageDescriber(tmp_path, offline=True).overall_captions([photo])
