"""Bodies of requests in two shapes: JSON with photos in base64, or multipart with files."""

import re
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel
from starlette.datastructures import FormData, UploadFile

from consistentid.web.analysis_schemas import AnalysisSubmission
from consistentid.web.errors import MalformedRequest, UnsupportedBody
from consistentid.web.jobs import IMAGE, INTO, MASK_IMAGE, Photos, PortraitRequest
from consistentid.web.schemas import PortraitSubmission, photos_of
from consistentid.web.uploads import MAX_PHOTOS

Model = TypeVar("Model", bound=BaseModel)

_PART = re.compile(r"parts\.(\w{1,20})")
_PICTURES = (IMAGE, MASK_IMAGE, INTO)
_FILE = {"type": "string", "format": "binary"}
_MAX_FIELD = 100_000  # bytes of a field that is no file


def described(model: type[BaseModel], fields: dict[str, Any]) -> dict[str, Any]:
    """OpenAPI's description of a body.

    Args:
        model: of the JSON body.
        fields: of the multipart body; `photo` is always there.
    """
    required = ["photo", "request"] if "request" in fields else ["photo"]
    form = {"type": "object", "properties": {"photo": _FILE, **fields}, "required": required}
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}},
                "multipart/form-data": {"schema": form},
            },
        }
    }


PORTRAIT_BODY = described(
    PortraitSubmission,
    {
        "request": {
            "type": "string",
            "contentMediaType": "application/json",
            "description": "A PortraitRequest as JSON.",
            "examples": ['{"prompt": "a portrait photo of a smiling woman", "seed": 1}'],
        },
        "blend_with": _FILE,
        "same": {"type": "array", "items": _FILE},
        "beside": {"type": "array", "items": _FILE},
        "image": {**_FILE, "description": "The picture that img2img or inpaint changes."},
        "mask_image": {**_FILE, "description": "White where the picture is repainted."},
        "into": {**_FILE, "description": "The picture that the person is put into, in the place of `into_face`."},
        "parts.eyes": {
            **_FILE,
            "description": "Photo of who gives the eyes; likewise face, ears, nose, mouth, identity.",
        },
    },
)
ANALYSIS_BODY = described(AnalysisSubmission, {"face": {"type": "string"}})


async def portrait_body(request: Request) -> tuple[PortraitRequest, Photos]:
    """What is asked for, and the photos.

    Raises:
        ServingError, pydantic.ValidationError: the body is malformed or something else.
    """
    if _kind(request) == "application/json":
        submission = PortraitSubmission.model_validate_json(await request.body())
        return submission.request, submission.photos
    async with request.form(max_files=MAX_PHOTOS, max_fields=4, max_part_size=_MAX_FIELD) as form:
        _only(form, "photo", "request", "blend_with", "same", "beside", *_PICTURES)
        photos = photos_of(
            await _file(form, "photo") or b"",
            parts={
                name.removeprefix("parts."): await _file(form, name) or b"" for name in form if _PART.fullmatch(name)
            },
            blend_with=await _file(form, "blend_with"),
            same=tuple([await _content(value) for value in form.getlist("same")]),
            beside=tuple([await _content(value) for value in form.getlist("beside")]),
            **{name: await _file(form, name) for name in _PICTURES},
        )
        return PortraitRequest.model_validate_json(_text(form, "request")), photos


async def analysis_body(request: Request) -> tuple[bytes, int | str]:
    """The photo, and which face of it.

    Raises:
        ServingError, pydantic.ValidationError: the body is malformed or something else.
    """
    if _kind(request) == "application/json":
        submission = AnalysisSubmission.model_validate_json(await request.body())
        return submission.photo, submission.face
    async with request.form(max_files=1, max_fields=1, max_part_size=_MAX_FIELD) as form:
        _only(form, "photo", "face")
        photo = await _file(form, "photo")
        return photo or b"", _text(form, "face") if "face" in form else "largest"


def _kind(request: Request) -> str:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in {"application/json", "multipart/form-data"}:
        raise UnsupportedBody("send application/json with photos in base64, or multipart/form-data with files")
    return kind


def _only(form: FormData, *names: str) -> None:
    unknown = [name for name in form if name not in names and not ("request" in names and _PART.fullmatch(name))]
    if unknown:
        raise MalformedRequest(f"the form has an unknown field; those known are {', '.join(names)}")
    if "photo" not in form:
        raise MalformedRequest("the form has no file photo")


def _text(form: FormData, name: str) -> str:
    value = form.get(name)
    if not isinstance(value, str):
        raise MalformedRequest(f"the form needs the text field {name}")
    return value


async def _file(form: FormData, name: str) -> bytes | None:
    return await _content(form[name]) if name in form else None


async def _content(value: UploadFile | str) -> bytes:
    if isinstance(value, str):
        raise MalformedRequest("photos are sent as files, with a file name")
    return await value.read()
