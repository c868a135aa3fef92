"""`manifest.json`: what a dataset holds, what made it, and what became of every item of its sources.

It has no dates and names no machine: the same sources and settings give the same bytes.
"""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from consistentid.dataset.files import write_text
from consistentid.errors import InvalidData, first_line

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"


class ShardFile(BaseModel):
    """One Parquet file of records."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="path inside the dataset's folder")
    rows: int = Field(gt=0, description="records")
    bytes: int = Field(gt=0, description="size of the file")
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="of the file, hexadecimal")


class Counts(BaseModel):
    """What became of the items: each is accepted, rejected by one rule, or a duplicate."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    items: int = Field(ge=0, description="photos that the sources list")
    accepted: int = Field(ge=0, description="records of the dataset")
    rejected: dict[str, int] = Field(description="by rule")
    duplicates: int = Field(ge=0, description="copies and near copies of accepted ones")
    ignored: int = Field(ge=0, description="files of the sources that are no photos by their names; no items")

    @model_validator(mode="after")
    def _all_accounted_for(self) -> Self:
        if self.items != self.accepted + self.duplicates + sum(self.rejected.values()):
            raise ValueError("the counts do not add up to the number of items")
        return self


class Manifest(BaseModel):
    """Everything about a dataset but its records."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: int = Field(default=FORMAT_VERSION, description="of this page")
    made_by: str = Field(description="the version of consistentid")
    sources: tuple[str, ...] = Field(description="names of the folders and files that were read")
    fingerprint: str = Field(description="SHA-256 of the list of items and the settings")
    settings: dict[str, JsonValue] = Field(description="of the build, with its rules")
    recogniser: str = Field(description="what made the identity embeddings")
    identity_dim: int = Field(gt=0, description="numbers of an identity embedding")
    parser: str = Field(description="what made the label maps that no source has")
    captioner: str = Field(description="what wrote the captions that no source states")
    counts: Counts = Field(description="what became of the photos")
    people: int = Field(ge=0, description="different people in the dataset")
    shards: tuple[ShardFile, ...] = Field(description="the Parquet files, in the order of their records")

    @model_validator(mode="after")
    def _shards_hold_what_was_accepted(self) -> Self:
        if self.rows != self.counts.accepted:
            raise ValueError(f"the shards hold {self.rows} records, {self.counts.accepted} were accepted")
        return self

    @property
    def rows(self) -> int:
        """Number of records."""
        return sum(shard.rows for shard in self.shards)

    def write(self, folder: Path) -> None:
        """Write `manifest.json`."""
        write_text(folder / MANIFEST_NAME, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The manifest of a dataset.

        Raises:
            InvalidData: the folder holds no finished dataset, or one of another format.
        """
        path = folder / MANIFEST_NAME
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise InvalidData(
                f"{folder} is no finished dataset: it has no {MANIFEST_NAME}; run `consistentid dataset build`"
            ) from error
        try:
            manifest = cls.model_validate_json(text)
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, problem["loc"]))
            raise InvalidData(f"{path} is malformed ({where}: {first_line(ValueError(problem['msg']))})") from error
        if manifest.format_version != FORMAT_VERSION:
            raise InvalidData(
                f"{folder} has format {manifest.format_version}, this version reads format {FORMAT_VERSION}; "
                "build the dataset again"
            )
        return manifest


def this_version() -> str:
    """The installed version of consistentid."""
    try:
        return version("consistentid")
    except PackageNotFoundError:
        return "unknown"
