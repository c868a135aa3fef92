"""What comes from outside, checked before anything is computed."""

import threading
import warnings
from io import BytesIO
from typing import Any

from PIL import Image, UnidentifiedImageError

from consistentid.errors import InvalidSettings, UnreadableImage
from consistentid.faces.analysis import parse_choice
from consistentid.faces.regions import REGION_NAMES
from consistentid.generation.donors import Donors
from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.in_place import STRENGTH
from consistentid.generation.masks import MASK_NAMES
from consistentid.generation.request import GenerationRequest
from consistentid.generation.schedulers import scheduler_named
from consistentid.generation.settings import TEXT_TO_IMAGE
from consistentid.images import MAX_PIXELS, load_photo
from consistentid.web.config import ServerConfig
from consistentid.web.jobs import IMAGE, INTO, MASK_IMAGE, PHOTO, Photos, PortraitRequest

FORMATS = ("JPEG", "PNG", "WEBP")
MAX_PHOTOS = 16
_MAX_PLACE = 12_000  # characters: a mask of a person, packed
_PICTURES = (IMAGE, MASK_IMAGE, INTO)
_decoding = threading.Semaphore(2)  # bounds the memory that decoded photos take


def checked_photo(content: bytes, *, max_pixels: int, name: str = PHOTO) -> Image.Image:
    """A decoded photo: its header is read first, and only formats whose decoders are expected to meet hostile files.

    Args:
        content: of the file.
        max_pixels: more are refused before anything is decoded.
        name: what messages call it.

    Raises:
        UnreadableImage: it is something else, too large, or broken.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # max_pixels decides
            with Image.open(BytesIO(content), formats=FORMATS) as header:
                width, height = header.size
                frames = getattr(header, "n_frames", 1)
    except UnidentifiedImageError:
        raise UnreadableImage(f"{name} is no JPEG, PNG or WebP file") from None
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise UnreadableImage(f"{name} is a broken image ({type(error).__name__}); save it again") from None
    if width * height > max_pixels:
        raise UnreadableImage(
            f"{name} is {width} x {height}, more than {max_pixels / 1e6:g} million pixels; shrink it first"
        )
    if frames > 1:
        raise UnreadableImage(f"{name} is an animation of {frames} frames; send one of them")
    return _decoded(content, max_pixels=max_pixels)


def _decoded(content: bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    with _decoding:
        return load_photo(content, max_pixels=max_pixels)


def check_limits(request: PortraitRequest, config: ServerConfig) -> None:
    """Refuse what would take too long.

    Raises:
        InvalidSettings: the request is larger than the server allows.
    """
    words = "".join([*request.words, *request.words.values(), *request.clauses])
    text = len(request.prompt) + len(request.negative_prompt) + len(request.caption or "") + len(words)
    for value, most, what in (
        (text, config.max_text, "characters of prompt, negative prompt, caption, words and clauses"),
        (request.num_images, config.max_images, "images"),
        (len(request.regions or ()), len(REGION_NAMES), "regions"),
        (len(request.places), MAX_PHOTOS, "places"),
        (max(map(len, request.places), default=0), _MAX_PLACE, "characters of a place"),
        (request.steps or 0, config.max_steps, "steps"),
        (max(request.size or (0, 0)), config.max_side, "pixels on a side"),
    ):
        if value > most:
            raise InvalidSettings(f"{value} {what} were asked for; this server makes at most {most}")


def generation_request(request: PortraitRequest, photos: Photos) -> GenerationRequest:
    """What a generator is asked; of a picture that the person is put into, `picture_into` gives the rest.

    Raises:
        InvalidSettings: the pictures and the task do not fit each other.
    """
    (_, photo), *others = photos
    pictures = {role: content for role, content in others if role in _PICTURES}
    donors = Donors.of_roles([(role, content) for role, content in others if role not in _PICTURES])
    task, inputs = _task(request, pictures, photo)
    return GenerationRequest(photo, request.prompt, request.settings, task=task, inputs=inputs, donors=donors)


def picture_into(photos: Photos) -> bytes | None:
    """The picture that the person is put into."""
    return dict(photos[1:]).get(INTO)


def _task(request: PortraitRequest, pictures: dict[str, bytes], photo: bytes) -> tuple[str, dict[str, Any]]:
    """The task and the arguments of its pipeline; putting somebody into a picture is inpainting with a named mask."""
    if request.mask is not None and MASK_IMAGE in pictures:
        raise InvalidSettings("give a mask by its name or as mask_image; leave one out")
    if INTO in pictures and (len(pictures) > 1 or request.task == "img2img"):
        raise InvalidSettings("into takes the place of task, image and mask_image; leave them out, or into")
    if request.into_face is not None and INTO not in pictures:
        raise InvalidSettings("into_face says who is replaced in the photo into; send that too, or leave it out")
    task, mask, strength = request.task, request.mask, request.strength
    if INTO in pictures:
        task, mask, strength = "inpaint", mask or "face", strength or STRENGTH
    inputs: dict[str, Any] = {
        "mask_image": mask,
        "mask_feather": request.mask_feather,
        "mask_match": request.mask_match or None,
        "strength": strength,
    }
    if mask is not None and mask not in MASK_NAMES:
        raise InvalidSettings(f"there is no mask {mask!r}; choose from {', '.join(MASK_NAMES)}, or send mask_image")
    if MASK_IMAGE in pictures:
        inputs["mask_image"] = _decoded(pictures[MASK_IMAGE]).convert("L")
    if IMAGE in pictures or (task != TEXT_TO_IMAGE and mask is None):  # with a named mask, the photo's own analysis
        inputs["image"] = _decoded(pictures.get(IMAGE, photo))
    return task, {name: value for name, value in inputs.items() if value is not None}


def check_request(
    request: PortraitRequest, photos: Photos, *, config: ServerConfig, generator: PortraitGenerator | None
) -> None:
    """Refuse a request that could only fail.

    Args:
        request: what is asked for.
        photos: the person's own first.
        config: has the limits.
        generator: knows what the model can do and which prompts are refused; None: nobody here does.

    Raises:
        ConsistentIDError: the first thing that is wrong with it.
    """
    check_limits(request, config)
    for face in (request.face, request.into_face):
        if face is not None:
            parse_choice(face)
    if len(photos) > MAX_PHOTOS:
        raise InvalidSettings(f"{len(photos)} photos were sent; at most {MAX_PHOTOS} are used")
    sizes = {role: _checked_size(role, content, config) for role, content in photos}
    if (into := sizes.get(INTO)) is not None and into[0] * into[1] * request.num_images > config.max_pixels:
        raise InvalidSettings(
            f"{request.num_images} pictures of {into[0]} x {into[1]} are more than {config.max_pixels / 1e6:g} million "
            "pixels; ask for fewer, or shrink it first"
        )
    asked = generation_request(request, photos)
    if generator is not None:
        size = generator.accepted(asked).size or (0, 0)
        if into is None and max(size) > config.max_side:
            made = f"{size[0]} x {size[1]}"
            raise InvalidSettings(f"the picture would be {made}; this server makes at most {config.max_side} a side")
        if request.scheduler is not None:
            scheduler_named(request.scheduler, like=generator.pipeline.scheduler)


def _checked_size(role: str, content: bytes, config: ServerConfig) -> tuple[int, int]:
    return checked_photo(content, max_pixels=config.max_pixels, name=role).size
