"""Counts of a dataset."""

from pathlib import Path

from consistentid.dataset.shards import FGIDDataset
from consistentid.dataset.statistics import STATISTICS_NAME, Spread, Statistics, statistics


def test_everything_is_counted(drawn_dataset: Path) -> None:
    found = statistics(FGIDDataset.open(drawn_dataset))
    assert found == Statistics(
        items=10,
        photos=7,
        rejected={"no_face": 2},
        duplicates=1,
        ignored=4,
        people=4,
        people_by_photos={1: 1, 2: 3},
        regions={"face": 7, "ears": 5, "eyes": 7, "nose": 7, "mouth": 7},
        face_px=Spread(least=24, low=24, middle=24, high=24, most=24),
        caption=Spread(least=20, low=20, middle=20, high=20, most=20),
        facial_caption=Spread(least=24, low=24, middle=24, high=24, most=24),
        licences={"CC0-1.0": 5, "MIT": 2},
        sources={"drawn": 6, "other": 1},
        genders={"man": 2, "woman": 1},
        decades={20: 1, 40: 2},
    )


def test_statistics_are_read_back(drawn_dataset: Path, tmp_path: Path) -> None:
    found = statistics(FGIDDataset.open(drawn_dataset))
    found.write(tmp_path)
    assert Statistics.model_validate_json((tmp_path / STATISTICS_NAME).read_bytes()) == found


def test_a_spread_leaves_out_the_ends() -> None:
    assert Spread.of(range(101)) == Spread(least=0, low=5, middle=50, high=95, most=100)
