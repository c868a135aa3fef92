"""What `/v1/portraits` takes and gives; requests are `jobs.PortraitRequest`, and with it the settings of generation."""

import base64
from datetime import UTC, datetime
from typing import Annotated, Self

from pydantic import Base64Bytes, BaseModel, ConfigDict, Field

from consistentid.generation.donors import Donors
from consistentid.identity.control import check_parts
from consistentid.web.jobs import PHOTO, JobState, Photos, PortraitJob, PortraitRequest, Progress

_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
EncodedPhoto = Annotated[
    Base64Bytes, Field(min_length=1, description="JPEG, PNG or WebP file in base64.", examples=[_PIXEL])
]
JOB_ID = r"^[0-9a-f]{32}$"


class Strict(BaseModel):
    """No field more than those named, and none changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class OtherPhotos(Strict):
    """Photos besides the one of the person: those of `donors.Donors`, and pictures that are changed.

    Attributes:
        parts: of who gives a part instead, by part: face, ears, eyes, nose, mouth or identity.
        blend_with: of a second person, who is mixed in by `blend`.
        same: more photos of the same person.
        beside: of other people in the same picture.
        image: the picture that a task changes, instead of the person's photo.
        mask_image: white where it is repainted.
        into: the picture that the person is put into, in the place of its largest face or of `into_face`.
    """

    parts: dict[str, EncodedPhoto] = Field(default_factory=dict)
    blend_with: EncodedPhoto | None = None
    same: tuple[EncodedPhoto, ...] = ()
    beside: tuple[EncodedPhoto, ...] = ()
    image: EncodedPhoto | None = None
    mask_image: EncodedPhoto | None = None
    into: EncodedPhoto | None = None


class PortraitSubmission(PortraitRequest):
    """A request with its photos in base64.

    Attributes:
        photo: of the person.
        others: photos besides.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={"examples": [{"photo": _PIXEL, "prompt": "a portrait photo of a smiling woman", "seed": 1}]},
    )

    photo: EncodedPhoto
    others: OtherPhotos = OtherPhotos()

    @property
    def request(self) -> PortraitRequest:
        """Without the photos."""
        return PortraitRequest(**self.model_dump(exclude={"photo", "others"}, exclude_unset=True))

    @property
    def photos(self) -> Photos:
        """Role and content of every photo."""
        return photos_of(self.photo, **dict(self.others))


def photos_of(
    photo: bytes,
    *,
    parts: dict[str, bytes],
    blend_with: bytes | None,
    same: tuple[bytes, ...],
    beside: tuple[bytes, ...],
    **pictures: bytes | None,
) -> Photos:
    """Role and content of every photo: the person's own, the donors' in the order of `Donors.by_role`, the pictures.

    Args:
        photo: of the person.
        parts: of who gives a part, by part.
        blend_with: of a second person.
        same: more of the person.
        beside: of others in the same picture.
        **pictures: by role: `image`, `mask_image`, `into`.

    Raises:
        InvalidSettings: a part is unknown.
    """
    check_parts(parts)
    donors = Donors(parts, blend_with, same, beside).by_role()
    found = [(PHOTO, photo), *donors, *pictures.items()]
    return [(role, content) for role, content in found if isinstance(content, bytes)]


class PortraitLink(Strict):
    """A portrait that was made.

    Attributes:
        index: place in the job.
        seed: it was drawn with.
        url: of the PNG, None when the safety checker withheld it.
    """

    index: int
    seed: int
    url: str | None


class PortraitStatus(Strict):
    """A job and where it stands.

    Attributes:
        id: of the job.
        state: queued, running, succeeded, failed or cancelled.
        created, updated: UTC.
        position: jobs that are queued before it.
        step, steps: denoising steps done, and of the whole job; 0 until it runs.
        error: why it failed, in one sentence.
        portraits: when it succeeded.
        request: what was asked for.
    """

    id: str = Field(pattern=JOB_ID)
    state: JobState
    created: datetime
    updated: datetime
    position: int
    step: int
    steps: int
    error: str | None
    portraits: tuple[PortraitLink, ...]
    request: PortraitRequest

    @classmethod
    def of(cls, job: PortraitJob, *, url: str, position: int = 0) -> Self:
        """The status of a job.

        Args:
            job: as it is.
            url: of the job.
            position: jobs that are queued before it.
        """
        links = [
            PortraitLink(
                index=index,
                seed=job.request.seed + index,
                url=None if index in job.withheld else f"{url}/images/{index}",
            )
            for index in range(job.images)
        ]
        return cls(
            id=job.id,
            state=job.state,
            created=datetime.fromtimestamp(job.created, UTC),
            updated=datetime.fromtimestamp(job.updated, UTC),
            position=position,
            step=job.step,
            steps=job.steps,
            error=job.error,
            portraits=tuple(links),
            request=job.request,
        )


class PortraitEvent(Strict):
    """What a follower is told.

    Attributes:
        state, position, step, steps, error: as in `PortraitStatus`.
        preview: JPEG in base64 of the picture that the run is heading for, when there is a newer one.
    """

    state: JobState
    position: int
    step: int
    steps: int
    error: str | None
    preview: str | None

    @classmethod
    def of(cls, progress: Progress) -> Self:
        """The event of a change."""
        job = progress.job
        preview = None if progress.preview is None else base64.b64encode(progress.preview).decode()
        return cls(
            state=job.state,
            position=progress.position,
            step=job.step,
            steps=job.steps,
            error=job.error,
            preview=preview,
        )


class Deleted(Strict):
    """How many jobs were deleted, with everything of them."""

    deleted: int
