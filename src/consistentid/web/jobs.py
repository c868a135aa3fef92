"""One record for a portrait job, and the states it goes through."""

import hashlib
import secrets
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from consistentid.generation.settings import GenerationSettings

# Roles of the photo of the person, the picture that a task changes, its mask, and the picture that the person is put
# into; the others are those of `donors.Donors.by_role`.
PHOTO, IMAGE, MASK_IMAGE, INTO = "photo", "image", "mask_image", "into"
MAX_ATTEMPTS = 3


class PortraitRequest(GenerationSettings):
    """What is asked for, besides the photos: the settings of generation, a prompt, and what is changed.

    Attributes:
        prompt: what the portrait shall show.
        task: text-to-image, or img2img or inpaint, which change the photo `image`, else the person's own.
        strength: how much is changed.
        mask: what is repainted: face, ears, eyes, nose, mouth, hair or head; else send `mask_image`, white there.
        mask_feather: width of the named mask's soft border, as a share of the picture's shorter side.
        mask_match: give what is repainted within a named mask the colours and the grain around it.
        into_face: who is replaced in the photo `into`, said as `face` is; the largest face, if not given.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={"examples": [{"prompt": "a portrait photo of a smiling woman, blue background", "seed": 1}]},
    )

    prompt: str = Field(min_length=1)
    task: Literal["text-to-image", "img2img", "inpaint"] = "text-to-image"
    strength: float | None = Field(default=None, gt=0, le=1)
    mask: str | None = None
    mask_feather: float | None = Field(default=None, ge=0, le=0.5)
    mask_match: bool = False
    into_face: int | str | None = None

    @property
    def settings(self) -> GenerationSettings:
        """Those of generation alone."""
        values = self.model_dump(include=set(GenerationSettings.model_fields), exclude_unset=True)
        return GenerationSettings(**values)

    @property
    def batch_key(self) -> str:
        """Equal for requests that may share a denoising run; see `Shot.run_key`, which decides in the end."""
        names = {"steps", "scheduler", "guidance", "identity_scale", "merge_step", "size", "prompt_weighting"}
        return self.model_dump_json(include=names)


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


class PortraitJob(BaseModel):
    """A request that was accepted, and what became of it.

    Attributes:
        id: 128 random bits in hexadecimal.
        owner: whose it is; a hash of an API key, or a name of a front door.
        request: what was asked for.
        roles: of the photos, in the order of their files.
        state: where it stands.
        created, updated: seconds since 1970.
        attempts: how often a worker began with it.
        step, steps: denoising steps done, and of the whole job; 0 until it runs.
        images: portraits that were made.
        withheld: of these, the ones that the safety checker blacked; they are not kept.
        error: why it failed, in one sentence.
        idempotency_key: given by the caller.
        fingerprint: of request and photos.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    owner: str
    request: PortraitRequest
    roles: tuple[str, ...]
    state: JobState = JobState.QUEUED
    created: float
    updated: float
    attempts: int = 0
    step: int = 0
    steps: int = 0
    images: int = 0
    withheld: tuple[int, ...] = ()
    error: str | None = None
    idempotency_key: str | None = None
    fingerprint: str

    @classmethod
    def new(
        cls,
        request: PortraitRequest,
        photos: "Photos",
        *,
        owner: str,
        idempotency_key: str | None = None,
    ) -> Self:
        """A job that is queued now."""
        now = time.time()
        digest = hashlib.sha256(request.model_dump_json().encode())
        for role, content in photos:
            digest.update(role.encode() + b"\0" + hashlib.sha256(content).digest())
        return cls(
            id=secrets.token_hex(16),
            owner=owner,
            request=request,
            roles=tuple(role for role, _ in photos),
            created=now,
            updated=now,
            idempotency_key=idempotency_key,
            fingerprint=digest.hexdigest(),
        )


Photos = list[tuple[str, bytes]]  # role and file content; the person's own first


@dataclass(frozen=True)
class Progress:
    """What a follower of a job is told.

    Attributes:
        job: as it is now.
        position: jobs that are queued before it.
        preview: JPEG of the picture that the run is heading for, when there is a newer one.
    """

    job: PortraitJob
    position: int = 0
    preview: bytes | None = None
