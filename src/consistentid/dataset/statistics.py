"""What a dataset holds, in numbers; read from its columns, without a photo being opened."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from consistentid.dataset.files import write_text
from consistentid.dataset.shards import FGIDDataset
from consistentid.errors import InvalidData
from consistentid.faces.regions import REGION_NAMES

STATISTICS_NAME = "statistics.json"


class Spread(BaseModel):
    """How numbers are spread."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    least: float = Field(description="the smallest")
    low: float = Field(description="5 % are below")
    middle: float = Field(description="half are below")
    high: float = Field(description="95 % are below")
    most: float = Field(description="the largest")

    @classmethod
    def of(cls, values: Sequence[float] | np.ndarray) -> Self:
        """The spread of numbers, of which there must be one."""
        least, low, middle, high, most = np.percentile(values, (0, 5, 50, 95, 100)).round(3).tolist()
        return cls(least=least, low=low, middle=middle, high=high, most=most)


class Statistics(BaseModel):
    """A dataset in numbers; everything but the first five counts its photos."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    items: int = Field(description="photos that the sources list")
    photos: int = Field(description="of them in the dataset")
    rejected: dict[str, int] = Field(description="by rule")
    duplicates: int = Field(description="copies and near copies that were left out")
    ignored: int = Field(description="files of the sources that are no photos by their names")
    people: int = Field(description="different people in the dataset")
    people_by_photos: dict[int, int] = Field(description="number of photos -> people who have so many")
    regions: dict[str, int] = Field(description="photos that show the region")
    face_px: Spread = Field(description="width of the face box, px")
    caption: Spread = Field(description="length of the overall caption, characters")
    facial_caption: Spread = Field(description="length of the facial caption, characters")
    licences: dict[str, int] = Field(description="licence -> photos")
    sources: dict[str, int] = Field(description="source -> photos")
    genders: dict[str, int] = Field(description="gender, where the source states it -> photos")
    decades: dict[int, int] = Field(description="age in tens of years, where the source states it -> photos")

    def write(self, folder: Path) -> None:
        """Write `statistics.json`."""
        write_text(folder / STATISTICS_NAME, self.model_dump_json(indent=2) + "\n")


def statistics(dataset: FGIDDataset) -> Statistics:
    """Count a dataset.

    Raises:
        InvalidData: it holds no photo.
    """
    if not len(dataset):
        raise InvalidData(f"{dataset.folder} holds no photo: every one was rejected; see rejected.jsonl")
    counts = dataset.manifest.counts
    people = Counter(dataset.column("person"))
    shown = Counter(name for names in dataset.column("regions") for name in names)
    ages = [age for age in dataset.column("age") if age is not None]
    return Statistics(
        items=counts.items,
        photos=len(dataset),
        rejected=counts.rejected,
        duplicates=counts.duplicates,
        ignored=counts.ignored,
        people=len(people),
        people_by_photos=dict(sorted(Counter(people.values()).items())),
        regions={name: shown[name] for name in REGION_NAMES},
        face_px=Spread.of(dataset.column("quality.face_px")),
        caption=_lengths(dataset, "caption"),
        facial_caption=_lengths(dataset, "facial_caption"),
        licences=_counted(dataset, "licence"),
        sources=_counted(dataset, "source"),
        genders=_counted(dataset, "gender"),
        decades=dict(sorted(Counter(int(age) // 10 * 10 for age in ages).items())),
    )


def _lengths(dataset: FGIDDataset, column: str) -> Spread:
    return Spread.of([len(text) for text in dataset.column(column)])


def _counted(dataset: FGIDDataset, column: str) -> dict[str, int]:
    """How often each value occurs, the most frequent first; missing ones are not counted."""
    found = Counter(value for value in dataset.column(column) if value is not None)
    return dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0])))
