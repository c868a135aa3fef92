"""One photo of one person, analysed: the unit of every dataset here."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class FGIDRecord(BaseModel):
    """A photo with everything training needs to know of it; source and licence travel along."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    photo: Path
    person: str = Field(description="who it is; photos of one person share it")
    source: str
    licence: str
    box: tuple[float, float, float, float] = Field(description="left, top, right, bottom of the face, px")
    landmarks: tuple[tuple[float, float], ...] = Field(min_length=5, max_length=5, description="x and y, px")
    identity_embedding: tuple[float, ...]
    label_map: Path = Field(description="PNG of CelebAMask-HQ classes, as large as the photo")
    caption: str
    gender: str | None = Field(default=None, pattern="^(man|woman)$")
