import json

import pytest

from consistentid.errors import WeightsNotFound
from consistentid.identity.config import AdapterConfig


@pytest.mark.parametrize(
    ("strength", "problem"),
    [({"chin": 1.0}, "unknown region 'chin'"), ({"eyes": 0.0}, "above 0 and at most"), (2.5, "above 0 and at most")],
)
def test_impossible_strengths_of_regions_are_refused(config, tmp_path, strength, problem):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(config.to_json()) | {"region_strength": strength}))
    with pytest.raises(WeightsNotFound, match=f"no adapter configuration: region_strength: .*{problem}"):
        AdapterConfig.load(path)
