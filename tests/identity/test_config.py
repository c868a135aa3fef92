import json

import pytest

from consistentid.errors import WeightsNotFound
from consistentid.faces.regions import REGION_NAMES
from consistentid.identity.config import AdapterConfig


@pytest.mark.parametrize(
    ("strength", "problem"),
    [
        ({"chin": 1.0}, "unknown region 'chin'"),
        ({"eyes": 0.0}, "above 0 and at most"),
        (2.5, "above 0 and at most"),
        ("much", "give a number, or numbers by region"),
        (None, "give a number, or numbers by region"),
    ],
)
def test_impossible_strengths_of_regions_are_refused(config, tmp_path, strength, problem):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(config.to_json()) | {"region_strength": strength}))
    with pytest.raises(WeightsNotFound, match=f"no adapter configuration: region_strength: .*{problem}"):
        AdapterConfig.load(path)


def test_one_strength_is_for_all_regions(config):
    given = {"region_strength": 0.5} | config.model_dump(exclude={"region_strength"})
    assert AdapterConfig.model_validate(given).region_strength == dict.fromkeys(REGION_NAMES, 0.5)


def test_a_region_without_a_strength_is_as_the_encoder_says(config):
    some = config.model_copy(update={"region_strength": {"eyes": 0.5}})
    assert [some.strength_of(name) for name in ("eyes", "nose")] == [0.5, 1.0]
