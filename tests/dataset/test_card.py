"""The card: front matter that the hub reads, tables that add up, plots that are the same bytes each time."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import DatasetCard
from PIL import Image

from consistentid.dataset.card import CARD_NAME, write_card
from consistentid.dataset.plots import draw_plots
from consistentid.dataset.record import FGIDRecord
from consistentid.dataset.shards import FGIDDataset
from consistentid.dataset.statistics import STATISTICS_NAME, Statistics, statistics

Draw = Callable[..., FGIDRecord]
Write = Callable[[Path, list[list[FGIDRecord]]], Path]


@pytest.fixture(scope="module")
def carded(drawn_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("carded") / "dataset"
    shutil.copytree(drawn_dataset, folder)
    write_card(folder)
    return folder


def test_the_front_matter_is_the_hubs(carded: Path) -> None:
    data = DatasetCard.load(carded / CARD_NAME).data.to_dict()
    assert data["license"] == "other"
    assert data["size_categories"] == ["n<1K"]
    assert data["configs"][0]["data_files"] == [{"split": "train", "path": ["data/*.parquet"]}]


def test_the_card_says_what_became_of_every_photo(carded: Path) -> None:
    text = (carded / CARD_NAME).read_text()
    assert "7 photos of 4 people" in text
    for row in ("| listed | 10 |", "| rejected: no_face | 2 |", "| left out as copies | 1 |", "| MIT | 2 |"):
        assert row in text
    for line in text.splitlines():
        if line.startswith("!["):
            with Image.open(carded / line.partition("(")[2].rstrip(")")) as plot:
                assert min(plot.size) > 100
    assert text.count("![") == len(list((carded / "plots").iterdir())) == 6
    assert Statistics.model_validate_json((carded / STATISTICS_NAME).read_bytes()).photos == 7


def test_the_same_dataset_has_the_same_card(carded: Path) -> None:
    files = [path for path in carded.rglob("*") if path.suffix in (".md", ".png", ".json")]
    before = {path: path.read_bytes() for path in files}
    write_card(carded)
    assert {path: path.read_bytes() for path in files} == before
    assert not list(carded.rglob(".*"))


def test_one_known_licence_is_named(draw_record: Draw, write_dataset: Write, tmp_path: Path) -> None:
    write_dataset(tmp_path, [[draw_record(0), draw_record(1)]])
    write_card(tmp_path)
    assert DatasetCard.load(tmp_path / CARD_NAME).data.to_dict()["license"] == "cc0-1.0"


def test_nothing_is_drawn_of_what_is_not_stated_and_many_values_are_summed_up(
    drawn_dataset: Path, tmp_path: Path
) -> None:
    found = statistics(FGIDDataset.open(drawn_dataset)).model_copy(
        update={
            "genders": {},
            "decades": {},
            "licences": {f"licence {number}": 40 - number for number in range(30)},
            "people_by_photos": dict.fromkeys(range(1, 60), 3),
        }
    )
    plots = draw_plots(tmp_path, found, face_px=np.arange(50.0))
    assert list(plots) == ["Face sizes", "Regions", "Photos per person", "Licences"]
    with Image.open(tmp_path / plots["Licences"]) as image:
        assert image.height < 700
