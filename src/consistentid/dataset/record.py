"""One photo of one person with everything that training needs to know of it: the unit of every dataset here."""

from io import BytesIO
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from consistentid.faces.analysis import FaceAnalysis
from consistentid.faces.regions import REGION_NAMES, region_masks

Float32 = Annotated[float, "float32"]  # stored with 4 bytes; the other numbers with 8
Point = tuple[float, float]


def _rounded(values: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(np.asarray(values, np.float32).tolist())


def _known(names: tuple[str, ...]) -> tuple[str, ...]:
    if unknown := set(names) - set(REGION_NAMES):
        raise ValueError(f"{', '.join(sorted(unknown))}: no region of a face; regions are {', '.join(REGION_NAMES)}")
    return names


class Quality(BaseModel):
    """What was measured of a photo before it was taken into the dataset."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    faces: int = Field(ge=0, description="how many faces the photo shows")
    face_px: float = Field(ge=0, description="width of the face box, px")
    sharpness: float = Field(description="variance of the Laplacian of the grey face box, resized to 128 px")
    brightness: float = Field(ge=0, le=1, description="mean brightness of the face, 0 black to 1 white")
    clipped: float = Field(ge=0, le=1, description="share of the face's pixels that are fully black or white")
    yaw: float = Field(description="offset of the nose from the middle of the eyes, in half eye distances; 0 frontal")
    roll: float = Field(description="angle of the line through the eyes, degrees; 0 upright")


class FGIDRecord(BaseModel):
    """A photo, its label map, identity, captions and quality; source and licence travel along."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern="^[0-9a-f]{16}$", description="first 16 hex digits of the SHA-256 of the source file")
    photo: bytes = Field(repr=False, description="JPEG or PNG, upright RGB")
    label_map: bytes = Field(repr=False, description="PNG of CelebAMask-HQ classes, as large as the photo")
    width: int = Field(gt=0, description="of the photo, px")
    height: int = Field(gt=0, description="of the photo, px")
    person: str = Field(description="who it is; photos of one person share it")
    source: str = Field(description="where the photo comes from: a data set, an agency")
    licence: str = Field(description="as the source words it, or 'not stated'")
    origin: str = Field(description="path, URL or key of the photo inside the source")
    box: tuple[float, float, float, float] = Field(description="left, top, right, bottom of the face, px")
    landmarks: tuple[Point, Point, Point, Point, Point] = Field(
        description="x and y of left eye, right eye, nose, left and right mouth corner, px; sides are the viewer's"
    )
    identity_embedding: Annotated[tuple[Float32, ...], AfterValidator(_rounded)] = Field(
        repr=False, description="what the recogniser makes of the face, scaled as it gives it"
    )
    recogniser: str = Field(description="what made the identity embedding")
    regions: Annotated[tuple[str, ...], AfterValidator(_known)] = Field(description="regions that the label map shows")
    caption: str = Field(description="of the whole photo")
    facial_caption: str = Field(description="of the face, names its regions")
    gender: Literal["man", "woman"] | None = Field(default=None, description="only when the source states it")
    gender_estimated: Literal["man", "woman"] | None = Field(
        default=None, description="what somebody or something guessed, when the source says so; never counted as stated"
    )
    age: int | None = Field(default=None, ge=0, le=130, description="years, only when the source states it")
    quality: Quality = Field(description="what was measured of the photo; see below")
    perceptual_hash: str = Field(pattern="^[0-9a-f]{16}$", description="near copies differ in few bits")

    def open_photo(self) -> Image.Image:
        """The photo, decoded: RGB."""
        return Image.open(BytesIO(self.photo)).convert("RGB")

    def open_label_map(self) -> UInt8[np.ndarray, "h w"]:
        """The label map, decoded."""
        return np.array(Image.open(BytesIO(self.label_map)))

    @property
    def identity(self) -> Float[np.ndarray, " d"]:
        """The identity embedding as an array of float32."""
        return np.array(self.identity_embedding, np.float32)

    def analysis(self) -> FaceAnalysis:
        """What generation makes of a photo, from what is stored."""
        return FaceAnalysis(
            photo=np.asarray(self.open_photo()),
            box=self.box,
            landmarks=np.array(self.landmarks, np.float32),
            identity_embedding=self.identity,
            label_map=self.open_label_map(),
            description=self.facial_caption,
            faces_found=self.quality.faces,
        )

    def region_masks(self) -> dict[str, Bool[np.ndarray, "h w"]]:
        """The mask of every region that the label map shows; see `regions.region_masks`."""
        return region_masks(self.open_label_map())
