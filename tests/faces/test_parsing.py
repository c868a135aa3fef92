"""Parsers: tiny real networks."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from consistentid.errors import WeightsNotFound
from consistentid.faces.bisenet import BiSeNet, BisenetParser
from consistentid.faces.crops import alignment
from consistentid.faces.detection import DetectedFace
from consistentid.faces.parsing import SegformerParser, label_numbers, with_position
from consistentid.faces.regions import LABEL_NAMES

Drawn = tuple[np.ndarray, np.ndarray, DetectedFace]
OTHER_ORDER = (
    "background", "skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear", "mouth", "u_lip",
    "l_lip", "hair", "hat", "ear_r", "neck_l", "neck", "cloth",
)  # fmt: skip


def tiny_segformer(names: tuple[str, ...], **extra: object) -> SegformerForSemanticSegmentation:
    config = SegformerConfig(
        hidden_sizes=[8, 8, 8, 8],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 1, 1, 1],
        decoder_hidden_size=8,
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
        **extra,
    )
    return SegformerForSemanticSegmentation(config)


def always(model: SegformerForSemanticSegmentation, label: int) -> SegformerForSemanticSegmentation:
    """The model answers one class everywhere."""
    torch.nn.init.zeros_(model.decode_head.classifier.weight)
    torch.nn.init.zeros_(model.decode_head.classifier.bias)
    model.decode_head.classifier.bias.data[label] = 1
    return model


def test_segformer_paints_the_view_of_the_face_only(drawn_face: Drawn, tmp_path: Path) -> None:
    photo, _, face = drawn_face
    always(tiny_segformer(LABEL_NAMES, face_zoom=1.0, face_size=64), 17).save_pretrained(tmp_path)
    label_map = SegformerParser(tmp_path, offline=True).parse(photo, face)
    side = np.hypot(*alignment(face.landmarks, 1)[:, 0])
    assert label_map.shape == photo.shape[:2]
    assert label_map.dtype == np.uint8
    assert set(np.unique(label_map)) == {0, 17}
    assert abs((label_map == 17).sum() / side**2 - 1) < 0.02
    assert (label_map[100:200, 90:170] == 17).all()


def test_tilted_heads_are_seen_upright_and_painted_tilted(drawn_face: Drawn, tmp_path: Path) -> None:
    photo, _, face = drawn_face
    always(tiny_segformer(LABEL_NAMES, face_zoom=1.0, face_size=64), 1).save_pretrained(tmp_path)
    parser = SegformerParser(tmp_path, offline=True)
    middle, angle = face.landmarks.mean(0), np.radians(30)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], np.float32)
    tilted = replace(face, landmarks=((face.landmarks - middle) @ turn.T + middle).astype(np.float32))
    upright, turned = parser.parse(photo, face) == 1, parser.parse(photo, tilted) == 1
    assert abs(turned.sum() / upright.sum() - 1) < 0.05
    rows, columns = np.nonzero(turned)
    assert columns[rows == rows.min()].mean() < columns.mean()  # turned clockwise, the upper left corner is on top
    assert np.ptp(columns) > 1.25 * np.ptp(np.nonzero(upright)[1])


def test_a_view_painted_back_lies_where_it_was_taken(drawn_face: Drawn, tmp_path: Path) -> None:
    """A parser that calls the dark half of its view skin paints the dark half of the photo."""
    _, _, face = drawn_face
    photo = np.zeros((256, 256, 3), np.uint8)
    photo[:, 128:] = 255

    class ByLight(SegformerParser):
        def _classify(self, view: Image.Image, size: int) -> np.ndarray:
            grey = np.asarray(view.convert("L").resize((size, size)))
            return np.where(grey > 127, 17, 1).astype(np.uint8)

    tiny_segformer(LABEL_NAMES, face_zoom=1.0, face_size=128).save_pretrained(tmp_path)
    for turn in (0, 20):
        angle = np.radians(turn)
        matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], np.float32)
        points = ((face.landmarks - 128) @ matrix.T + 128).astype(np.float32)
        label_map = ByLight(tmp_path, offline=True).parse(photo, replace(face, landmarks=points))
        seen = label_map > 0
        assert ((label_map == 17) == (np.arange(256) >= 128))[seen].mean() > 0.98


def test_position_channels_are_given_to_parsers_that_ask_for_them(drawn_face: Drawn, tmp_path: Path) -> None:
    photo, _, face = drawn_face
    always(tiny_segformer(LABEL_NAMES, num_channels=5, face_size=64), 1).save_pretrained(tmp_path)
    assert (SegformerParser(tmp_path, offline=True).parse(photo, face) == 1).any()
    placed = with_position(torch.zeros(2, 3, 4, 6))
    assert placed.shape == (2, 5, 4, 6)
    assert placed[0, 3, 0].tolist()[::5] == [-1, 1]
    assert placed[1, 4, :, 0].tolist()[::3] == [-1, 1]


def test_segformer_with_classes_in_another_order_gives_our_numbers(drawn_face: Drawn, tmp_path: Path) -> None:
    photo, _, face = drawn_face
    always(tiny_segformer(OTHER_ORDER), OTHER_ORDER.index("u_lip")).save_pretrained(tmp_path)
    assert set(np.unique(SegformerParser(tmp_path, offline=True).parse(photo, face))) <= {0, 12}


def test_every_class_of_both_namings_is_known_and_others_are_refused() -> None:
    assert label_numbers(dict(enumerate(LABEL_NAMES)), source="x").tolist() == list(range(19))
    assert sorted(label_numbers(dict(enumerate(OTHER_ORDER)), source="x").tolist()) == list(range(19))
    with pytest.raises(WeightsNotFound, match="'wall' is not one of CelebAMask-HQ's"):
        label_numbers({0: "background", 1: "wall"}, source="ade20k")


def test_a_missing_segformer_is_refused_in_one_sentence(drawn_face: Drawn, tmp_path: Path) -> None:
    with pytest.raises(WeightsNotFound, match="no SegFormer face parser") as refusal:
        SegformerParser(tmp_path / "absent", offline=True).parse(drawn_face[0], drawn_face[2])
    assert "\n" not in str(refusal.value)


@pytest.fixture(scope="module")
def bisenet() -> BiSeNet:
    torch.manual_seed(0)
    return BiSeNet().eval()


def test_bisenet_has_the_layout_of_the_public_file(bisenet: BiSeNet) -> None:
    state = bisenet.state_dict()
    size = sum(value.numel() * value.element_size() for value in state.values())
    assert 53.0e6 < size < 53.4e6  # the file has 53.3 MB
    for key, shape in {
        "cp.resnet.layer2.0.downsample.0.weight": (128, 64, 1, 1),
        "cp.resnet.layer4.1.bn2.running_var": (512,),
        "cp.arm16.conv.conv.weight": (128, 256, 3, 3),
        "cp.arm32.bn_atten.num_batches_tracked": (),
        "cp.conv_avg.conv.weight": (128, 512, 1, 1),
        "ffm.convblk.bn.bias": (256,),
        "ffm.conv1.weight": (64, 256, 1, 1),
        "conv_out.conv_out.weight": (19, 256, 1, 1),
        "conv_out16.conv.conv.weight": (64, 128, 3, 3),
        "conv_out32.conv_out.weight": (19, 64, 1, 1),
    }.items():
        assert tuple(state[key].shape) == shape


def test_bisenet_reads_both_kinds_of_file_and_keeps_its_resolution(
    bisenet: BiSeNet, drawn_face: Drawn, tmp_path: Path
) -> None:
    torch.save(bisenet.state_dict(), tmp_path / "face_parsing.pth")
    save_file(bisenet.state_dict(), tmp_path / "face_parsing.safetensors")
    photo = drawn_face[0][:200]
    maps = [BisenetParser(tmp_path / f"face_parsing.{end}", size=128).parse(photo) for end in ("pth", "safetensors")]
    assert maps[0].shape == (128, 128)
    assert maps[0].dtype == np.uint8
    assert np.array_equal(*maps)


def test_bisenet_refuses_wrong_broken_and_missing_files(bisenet: BiSeNet, drawn_face: Drawn, tmp_path: Path) -> None:
    absent, broken, other, code = (tmp_path / f"{name}.pth" for name in ("absent", "broken", "other", "code"))
    broken.write_bytes(b"no weights")
    torch.save({"weight": torch.zeros(1)}, other)
    torch.save(bisenet, code)  # a pickled object could run code; it is not read
    for path, message in {
        absent: "does not exist",
        broken: "is no checkpoint of tensors",
        other: "does not hold the weights of a BiSeNet",
        code: "holds code, which was not run",
    }.items():
        with pytest.raises(WeightsNotFound, match=message):
            BisenetParser(path).parse(drawn_face[0])
