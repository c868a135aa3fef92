import pytest
import torch

from consistentid.errors import InvalidSettings
from consistentid.faces.regions import REGION_NAMES
from consistentid.identity.conditioner import Conditioner
from consistentid.identity.conditioning import Conditioning
from consistentid.identity.control import Control, Strengths, check_parts, phases, without_token

ALL = dict.fromkeys(REGION_NAMES, 1.0)


@pytest.fixture
def both(pipeline, adapter, image_encoder, analyses):
    conditioner = Conditioner.from_pipeline(pipeline, adapter, image_encoder=image_encoder)
    return conditioner.condition(analyses, "a person")


def test_the_plain_call_has_two_phases():
    plain = (Strengths(None, 1.0, ALL), Strengths(ALL, 1.0, ALL))
    assert phases([Control()], steps=10, merge_step=3) == {0: plain[:1], 4: plain[1:]}
    assert phases([Control()], steps=10, merge_step=-1) == {0: plain[1:]}
    assert phases([Control()], steps=10, merge_step=10) == {0: plain[:1]}


def test_starts_win_over_the_merge_step():
    control = Control({"eyes": 1.5, "identity": 0.5}, {"eyes": 0.2}, {"eyes": 0.5, "identity": 0.8})
    only_eyes = {**dict.fromkeys(REGION_NAMES, 0.0), "eyes": 1.5}
    found = phases([control, Control()], steps=10, merge_step=3)
    assert list(found) == [0, 2, 4, 5, 8]
    assert [rows[0] for rows in found.values()] == [
        Strengths(None, 0.5, {**ALL, "eyes": 0.0}),
        Strengths(only_eyes, 0.5, {**ALL, "eyes": 1.5}),
        Strengths({**ALL, "eyes": 1.5}, 0.5, {**ALL, "eyes": 1.5}),
        Strengths({**ALL, "eyes": 0.0}, 0.5, {**ALL, "eyes": 0.0}),
        Strengths({**ALL, "eyes": 0.0}, 0.0, {**ALL, "eyes": 0.0}),
    ]
    assert [rows[1].regions for rows in found.values()] == [None, None, ALL, ALL, ALL]


def test_weights_of_1_change_nothing(both):
    assert both.with_weights([{}, {"eyes": 1.0}]) is both
    assert both.before_merge([False, False]) is both


def test_weight_0_is_the_text_and_others_stay(both):
    changed = both.with_weights([{"eyes": 0.0}, {"nose": 0.5, "ears": 0.0}])  # the second photo hides the ears
    for row, region, weight in ((0, "eyes", 0.0), (1, "nose", 0.5)):
        place = both.positions[row][both.regions[row].index(region)]
        different = (changed.prompt_embeds[row] != both.prompt_embeds[row]).any(-1).nonzero().flatten().tolist()
        assert different == [place]
        text, fused = both.unfused_embeds[row, place], both.prompt_embeds[row, place]
        torch.testing.assert_close(changed.prompt_embeds[row, place], text + weight * (fused - text))
    assert torch.equal(both.with_weights([dict.fromkeys(REGION_NAMES, 0.0)] * 2).prompt_embeds, both.unfused_embeds)


def test_a_batch_is_its_parts(both):
    weights = [{"eyes": 1.5}, {"mouth": 0.2}]
    together = both.with_weights(weights).before_merge([True, False])
    parts = [Conditioning(**{**vars(both), **row_of(both, row)}) for row in range(2)]
    apart = [
        part.with_weights([weight]).before_merge([bare])
        for part, weight, bare in zip(parts, weights, (True, False), strict=True)
    ]
    assert torch.equal(together.prompt_embeds, torch.cat([one.prompt_embeds for one in apart]))
    assert torch.equal(together.prompt_embeds[0], both.text_only_embeds[0])


def row_of(both, row):
    rows = ("facial_prompts", "regions", "positions")
    tensors = {name: value[row : row + 1] for name, value in vars(both).items() if isinstance(value, torch.Tensor)}
    return tensors | {name: getattr(both, name)[row : row + 1] for name in rows}


def test_words_change_the_caption_alone(pipeline, adapter, image_encoder, analyses):
    conditioner = Conditioner.from_pipeline(pipeline, adapter, image_encoder=image_encoder)
    found = conditioner.condition(analyses[0], "a person", words={"eyes": "closed"})
    assert found.facial_prompt.text_only == (
        "a person, The person has one face, two ears, closed eyes, one nose, and one mouth"
    )
    assert found.regions == (REGION_NAMES,)
    with pytest.raises(InvalidSettings, match="unknown region 'chin'; choose from face, ears"):
        conditioner.condition(analyses[0], "a person", words={"chin": "long"})


def test_refusals():
    check_parts({"eyes": 1, "identity": 1})
    with pytest.raises(InvalidSettings, match=r"unknown region 'hair'; choose from face, .*, identity"):
        check_parts({"hair": 1})


def test_what_is_controlled_without_a_token():
    assert without_token(Control({"ears": 0.0, "eyes": 1.0, "identity": 0.5}), ["eyes"], reworded=()) is None
    assert without_token(Control({"ears": 0.3}), ["eyes"], reworded=["ears"]) is None
    for control in (Control({"ears": 0.3}), Control(starts={"ears": 0.5}), Control(ends={"ears": 0.5})):
        assert without_token(control, ["eyes"], reworded=()) == "ears"
