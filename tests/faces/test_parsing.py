"""Parsers: tiny real networks."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from consistentid.errors import WeightsNotFound
from consistentid.faces.bisenet import BiSeNet, BisenetParser
from consistentid.faces.crops import Square
from consistentid.faces.detection import DetectedFace
from consistentid.faces.parsing import SegformerParser, head_tilt, label_numbers, paste_square
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


def test_segformer_paints_a_square_around_the_face_only(drawn_face: Drawn, tmp_path: Path) -> None:
    photo, _, face = drawn_face
    always(tiny_segformer(LABEL_NAMES, face_crop_scale=1.1, face_crop_size=64), 17).save_pretrained(tmp_path)
    label_map = SegformerParser(tmp_path, offline=True).parse(photo, face)
    square = Square.around(face.box, scale=1.1)
    assert label_map.shape == photo.shape[:2]
    assert label_map.dtype == np.uint8
    assert set(np.unique(label_map)) == {0, 17}
    assert abs((label_map == 17).sum() / square.side**2 - 1) < 0.02


def test_tilted_heads_are_turned_upright_and_back(drawn_face: Drawn, tmp_path: Path) -> None:
    """The tile that the parser sees, turned back, is a square turned by the head's angle around the face."""
    photo, _, face = drawn_face
    always(tiny_segformer(LABEL_NAMES, face_crop_scale=0.7, face_crop_size=64), 1).save_pretrained(tmp_path)
    parser = SegformerParser(tmp_path, offline=True)
    middle = np.array([128, 133], np.float32)
    angle = np.radians(30)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], np.float32)
    tilted = replace(face, landmarks=((face.landmarks - middle) @ turn.T + middle).astype(np.float32))
    assert abs(head_tilt(tilted) - 30) < 0.1
    upright, turned = parser.parse(photo, face) == 1, parser.parse(photo, tilted) == 1
    assert abs(turned.sum() / upright.sum() - 1) < 0.05
    assert np.abs(np.argwhere(turned).mean(0) - np.argwhere(upright).mean(0)).max() < 2
    rows, columns = np.nonzero(turned)
    highest = columns[rows == rows.min()].mean()  # turned clockwise, the tile's upper left corner is on top
    assert highest < columns.mean()
    assert np.ptp(columns) > 1.25 * np.ptp(np.nonzero(upright)[1])


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


def test_squares_past_the_border_are_cut() -> None:
    label_map = paste_square(np.full((8, 8), 5, np.uint8), Square(-4, -2, 8), height=10, width=20)
    assert label_map.shape == (10, 20)
    assert (label_map == 5).sum() == 4 * 6
    assert label_map[0, 0] == 5


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
        broken: "cannot be read as weights",
        other: "does not hold the weights of a BiSeNet",
        code: "cannot be read as weights",
    }.items():
        with pytest.raises(WeightsNotFound, match=message):
            BisenetParser(path).parse(drawn_face[0])
