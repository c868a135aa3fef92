from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from consistentid.errors import InvalidSettings
from consistentid.identity.conditioner import Conditioner
from consistentid.identity.mixing import MixedFace, mixed_embedding, normalised


@pytest.fixture
def conditioner(pipeline, adapter, image_encoder):
    return Conditioner.from_pipeline(pipeline, adapter, image_encoder=image_encoder)


def one(face):
    return ((face, 1.0),)


def token(conditioning, region):
    """Embedding of a region's word, which the text alone does not change."""
    return conditioning.prompt_embeds[0, conditioning.positions[0][conditioning.regions[0].index(region)]]


def test_a_mixture_of_one_is_that_one(conditioner, analyses):
    plain = conditioner.condition(analyses[0], "a person")
    for face in (
        MixedFace(one(analyses[0])),
        MixedFace(
            one(analyses[1]), dict.fromkeys(("face", "ears", "eyes", "nose", "mouth", "identity"), one(analyses[0]))
        ),
    ):
        made = conditioner.condition(face, "a person")
        for name in ("prompt_embeds", "identity", "image_features"):
            assert torch.equal(getattr(made, name), getattr(plain, name)), name


def test_every_part_goes_to_its_donor_and_the_rest_stays(conditioner, analyses):
    a, b = analyses
    mine, other = (conditioner.condition(face, "a person") for face in analyses)
    made = conditioner.condition(MixedFace(one(a), {"eyes": one(b)}), "a person")
    assert made.regions == mine.regions
    for region in mine.regions[0]:
        torch.testing.assert_close(token(made, region), token(other if region == "eyes" else mine, region))
    assert torch.equal(made.identity, mine.identity)
    overall = conditioner.condition(MixedFace(one(a), {"identity": one(b)}), "a person")
    assert torch.equal(overall.identity, other.identity)
    assert torch.equal(overall.image_features, other.image_features)
    assert torch.equal(overall.prompt_embeds, mine.prompt_embeds)


def test_a_blend_lies_between_and_takes_regions_from_who_shows_them(conditioner, analyses):
    a, b = analyses  # b hides the ears
    made = conditioner.condition(MixedFace(((a, 0.25), (b, 0.75))), "a person")
    mine, other = (conditioner.condition(face, "a person") for face in analyses)
    torch.testing.assert_close(made.image_features, 0.25 * mine.image_features + 0.75 * other.image_features)
    torch.testing.assert_close(token(made, "ears"), token(mine, "ears"))
    assert not torch.equal(token(made, "nose"), token(mine, "nose"))


def test_a_batch_of_mixtures_is_its_parts(conditioner, analyses):
    faces = [MixedFace(((analyses[0], 0.5), (analyses[1], 0.5))), analyses[1]]
    both = conditioner.condition(faces, "a person")
    for row, face in enumerate(faces):
        torch.testing.assert_close(
            both.prompt_embeds[row : row + 1], conditioner.condition(face, "a person").prompt_embeds
        )


def test_side_by_side_identities(conditioner, analyses):
    identity, features = conditioner.identities(MixedFace(((analyses[0], 0.9), (analyses[1], 0.1)), side_by_side=True))
    apart = [conditioner.condition(face, "a person") for face in analyses]
    assert torch.equal(identity, torch.cat([each.identity for each in apart]))
    torch.testing.assert_close(features, torch.cat([each.image_features for each in apart]))
    assert len(conditioner.identities(analyses[0])[0]) == 1


def test_the_caption_takes_the_words_of_the_donors(analyses):
    a = replace(analyses[0], description="The person has a round face, two narrow eyes, and a mouth.")
    b = replace(analyses[1], description="The person has a long face, two wide open eyes, and a smiling mouth.")
    mixed = MixedFace(((a, 0.4), (b, 0.6)), {"eyes": one(a), "identity": one(a)})
    assert mixed.description == "The person has a long face, two narrow eyes, and a smiling mouth."
    assert MixedFace(one(replace(a, description=None)), {"eyes": one(b)}).description is None


def test_a_donor_that_does_not_show_the_region_is_refused(conditioner, analyses):
    with pytest.raises(InvalidSettings, match="the photo that shall give ears does not show it; choose another one"):
        conditioner.condition(MixedFace(one(analyses[0]), {"ears": one(analyses[1])}), "a person")


@given(st.floats(0.01, 0.99), st.integers(0, 99))
def test_blended_embeddings_lie_on_the_arc(analyses, share, seed):
    random = np.random.default_rng(seed)
    vectors = [random.standard_normal(16).astype(np.float32) * scale for scale in (1.0, 3.0)]
    faces = [replace(face, identity_embedding=vector) for face, vector in zip(analyses, vectors, strict=True)]
    made = mixed_embedding(((faces[0], 1 - share), (faces[1], share)))
    lengths = [np.linalg.norm(vector) for vector in vectors]
    assert np.linalg.norm(made) == pytest.approx((1 - share) * lengths[0] + share * lengths[1], rel=1e-4)
    angle = np.arccos(vectors[0] @ vectors[1] / lengths[0] / lengths[1])
    part = np.arccos(np.clip(made @ vectors[0] / np.linalg.norm(made) / lengths[0], -1, 1))
    assert part == pytest.approx(share * angle, abs=1e-3)


def test_shares(analyses):
    assert normalised([(analyses[0], 3.0), (analyses[1], 1.0)]) == ((analyses[0], 0.75), (analyses[1], 0.25))
    assert normalised([(analyses[0], 1.0), (analyses[1], 0.0)]) == one(analyses[0])
    same = mixed_embedding(((analyses[0], 0.5), (analyses[0], 0.5)))
    np.testing.assert_allclose(same, analyses[0].identity_embedding, rtol=1e-5)
    assert mixed_embedding(one(analyses[0])) is analyses[0].identity_embedding
