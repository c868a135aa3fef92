from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from consistentid.identity.control import IDENTITY
from consistentid.identity.mixing import MixedFace
from consistentid.identity.several_photos import combined, quality, strangers


def person(face, *steps, size=128, seed=0):
    """Photos whose embeddings are so far from the first one's."""
    random = np.random.default_rng(seed)
    first = random.standard_normal(size).astype(np.float32)
    first *= 1.4 / np.linalg.norm(first)
    away = random.standard_normal(size).astype(np.float32)
    away /= np.linalg.norm(away)
    return [replace(face, identity_embedding=first + step * away) for step in steps]


@pytest.fixture
def face(analyses):
    """With something to blur."""
    noise = np.random.default_rng(0).integers(0, 90, analyses[0].photo.shape)
    return replace(analyses[0], photo=(analyses[0].photo // 2 + noise).astype(np.uint8))


def blurred(face):
    soft = Image.fromarray(face.photo).filter(ImageFilter.GaussianBlur(3))
    return replace(face, photo=np.asarray(soft))


def test_sharp_and_straight_photos_are_better(face):
    turned = replace(face, landmarks=face.landmarks + np.float32([[0, 0], [0, 0], [8, 0], [0, 0], [0, 0]]))
    assert 0.05 <= quality(blurred(face)) < quality(face) <= 1
    assert quality(turned) < quality(face)


def test_who_is_a_stranger(face):
    assert strangers(person(face, 0.0, 0.2, 0.4)) == []
    assert strangers(person(face, 0.0, 0.2, 0.9)) == [2]
    assert strangers(person(face, 0.9, 0.0, 0.2)) == [0], "the others agree with each other"
    assert strangers(person(face, 0.0, 0.9)) == [1], "of two the first one counts"
    assert strangers(person(face, 0.0, 0.7, 1.4)) == [1, 2], "nobody agrees"
    assert strangers(person(face, 0.0, 0.9, size=512)) == []  # ArcFace's lengths vary, its directions count
    assert strangers([replace(face, identity_embedding=sign * face.identity_embedding) for sign in (1, -1)]) == []


def test_combinations(face, analyses):
    soft, hidden = blurred(face), analyses[1]  # the second one hides the ears
    average = combined([face, soft], "average")
    assert [share for _, share in average.usual] == pytest.approx(
        np.array([quality(face), quality(soft)]) / (quality(face) + quality(soft))
    )
    assert (dict(average.parts), average.side_by_side) == ({}, False)
    assert combined([face, soft], "concatenate").side_by_side
    best = combined([soft, face], "best")
    assert {name: shares[0][0] for name, shares in best.parts.items()} == dict.fromkeys(face.region_masks, face)
    assert best.shares(IDENTITY) is best.usual
    assert combined([hidden, soft], "best").parts["ears"][0][0] is soft
    alone = combined([face], "concatenate")
    assert isinstance(alone, MixedFace)
    assert (alone.usual, alone.side_by_side) == (((face, 1.0),), False)
