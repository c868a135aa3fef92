"""Protocols, people and the plan that follows from them."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from consistentid.errors import InvalidData
from consistentid.evaluation.config import EvaluationConfig, load_config
from consistentid.evaluation.plan import Shot, plan
from consistentid.evaluation.protocols import Prompt, Protocol, load_protocol, protocol_names
from consistentid.evaluation.subjects import Subject, find_subjects, spread

SUBJECTS = [Subject(f"person {k}", Path(f"{k}.jpg")) for k in range(10)]


@pytest.mark.parametrize("name", protocol_names())
def test_every_protocol_can_be_planned(name: str) -> None:
    protocol = load_protocol(name)
    layout = plan(protocol, SUBJECTS, batch_size=4)
    shots = [shot for batch in layout.batches for shot in batch]
    assert len(shots) == len(set(shots))
    assert set(shots) == {shot for block in layout.blocks.values() for shot in block}
    assert not any(" img" in prompt.text for prompt in protocol.prompts.values())


@pytest.mark.parametrize(
    ("name", "prompts", "images"), [("paper", 45, 1), ("uniportrait", 40, 4), ("embedded", 17, None), ("pairs", 20, 1)]
)
def test_sizes_of_the_protocols(name: str, prompts: int, images: int | None) -> None:
    protocol = load_protocol(name)
    assert len({prompt.text for prompt in protocol.prompts.values()}) == prompts
    assert images is None or {block.images for block in protocol.blocks.values()} == {images}


def test_the_paper_has_four_groups() -> None:
    groups = {prompt.group for prompt in load_protocol("paper").prompts.values()}
    assert groups == {"clothing", "background", "action", "style"}


def test_a_seed_depends_on_person_prompt_and_index_only() -> None:
    shot = Shot("full", "plain", 0, "ada")
    assert shot.seed == Shot("base", "plain", 0, "ada").seed == 1291192521
    assert len({shot.seed, Shot("full", "plain", 1, "ada").seed, Shot("full", "plain", 0, "bob").seed}) == 3


def test_batches_share_method_prompt_and_index_and_do_not_depend_on_the_order_of_people() -> None:
    protocol = load_protocol("embedded")
    layout = plan(protocol, SUBJECTS, batch_size=4)
    assert all(len({(s.method, s.prompt, s.index) for s in batch}) == 1 for batch in layout.batches)
    assert all(len(batch) <= 4 for batch in layout.batches)
    again = plan(protocol, SUBJECTS[::-1], batch_size=4, only=["identity"])
    assert set(again.batches) == set(plan(protocol, SUBJECTS, batch_size=4, only=["identity"]).batches)


def test_baselines_take_part_where_full_does() -> None:
    layout = plan(load_protocol("embedded"), SUBJECTS, batch_size=4, baselines=["faceid"], only=["variety"])
    assert {shot.method for shot in layout.blocks["variety"]} == {"full", "faceid"}


def test_an_unknown_block_is_refused() -> None:
    with pytest.raises(InvalidData, match="choose from identity"):
        plan(load_protocol("embedded"), SUBJECTS, batch_size=4, only=["nonsense"])


def test_prompts_ask_only_for_what_can_be_told() -> None:
    with pytest.raises(ValidationError, match="cannot be measured"):
        Prompt(text="a person with a hat", asks={"hat": "red"})
    with pytest.raises(ValidationError, match="another value of the same"):
        Protocol.model_validate({
            "about": "x", "subjects": 1, "blocks": {"all": {"methods": ["full"]}},
            "prompts": {
                "a": {"text": "a", "asks": {"hair": "red"}, "opposite": "b"},
                "b": {"text": "b", "asks": {"background": "red"}, "opposite": "a"},
            },
        })  # fmt: skip


def test_people_by_file_by_folder_and_by_photo(tmp_path: Path) -> None:
    for name in ("ada/2.jpg", "ada/1.jpg", "bob.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    ada, bob = find_subjects(tmp_path, held_out=False)
    assert (ada.name, ada.reference.name, ada.gallery.name) == ("ada", "1.jpg", "2.jpg")
    assert (bob.name, bob.other, bob.gallery.name) == ("bob", None, "bob.png")
    records = [{"file": "bob.png", "person": "b", "gender_estimated": "man"}, {"file": "ada/1.jpg", "person": "a"}]
    (tmp_path / "portraits.jsonl").write_text("\n".join(map(json.dumps, records)))
    assert [(each.name, each.gender) for each in find_subjects(tmp_path, held_out=False)] == [("a", None), ("b", "man")]


def test_held_out_people_need_a_list(tmp_path: Path) -> None:
    (tmp_path / "ada.jpg").touch()
    with pytest.raises(InvalidData, match=r"portraits\.jsonl"):
        find_subjects(tmp_path, held_out=True)
    (tmp_path / "portraits.jsonl").write_text('{"file": "ada.jpg"}')
    with pytest.raises(InvalidData, match="line 1"):
        find_subjects(tmp_path, held_out=False)


def test_spread_is_even() -> None:
    assert spread(range(10), 5) == [0, 2, 4, 6, 8]
    assert spread([1, 2], 5) == [1, 2]


def test_the_configuration_in_the_repository_loads() -> None:
    config = load_config("configs/evaluate.yaml")
    assert config.recognisers == ("dlib", "facenet")
    assert load_config("a/folder").model == "a/folder"


def test_wrong_configurations_are_refused(tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text("modell: x")
    with pytest.raises(InvalidData, match="modell"):
        load_config(tmp_path / "wrong.yaml")
    with pytest.raises(InvalidData, match="does not exist"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(ValidationError, match="decided by the protocol"):
        EvaluationConfig(settings={"seed": 3})
