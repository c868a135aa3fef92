"""What comes from outside, checked before anything is computed."""

import threading
import warnings
from io import BytesIO

from PIL import Image, UnidentifiedImageError

from consistentid.errors import InvalidSettings, UnreadableImage
from consistentid.faces.analysis import parse_choice
from consistentid.faces.regions import REGION_NAMES
from consistentid.generation.donors import Donors
from consistentid.generation.generator import PortraitGenerator
from consistentid.generation.request import GenerationRequest
from consistentid.generation.schedulers import scheduler_named
from consistentid.images import load_photo
from consistentid.web.config import ServerConfig
from consistentid.web.jobs import PHOTO, Photos, PortraitRequest

FORMATS = ("JPEG", "PNG", "WEBP")
MAX_PHOTOS = 16
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
    with _decoding:
        return load_photo(content, max_pixels=max_pixels)


def check_limits(request: PortraitRequest, config: ServerConfig) -> None:
    """Refuse what would take too long.

    Raises:
        InvalidSettings: the request is larger than the server allows.
    """
    words = "".join(f"{part}{word}" for part, word in request.words.items())
    text = len(request.prompt) + len(request.negative_prompt) + len(request.caption or "") + len(words)
    for value, most, what in (
        (text, config.max_text, "characters of prompt, negative prompt, caption and words"),
        (request.num_images, config.max_images, "images"),
        (len(request.regions or ()), len(REGION_NAMES), "regions"),
        (request.steps or 0, config.max_steps, "steps"),
        (max(request.size or (0, 0)), config.max_side, "pixels on a side"),
    ):
        if value > most:
            raise InvalidSettings(f"{value} {what} were asked for; this server makes at most {most}")


def generation_request(request: PortraitRequest, photos: Photos) -> GenerationRequest:
    """What a generator is asked."""
    donors = Donors.of_roles([(role, content) for role, content in photos[1:]])
    return GenerationRequest(photos[0][1], request.prompt, request.settings, donors=donors)


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
    if request.face is not None:
        parse_choice(request.face)
    if len(photos) > MAX_PHOTOS:
        raise InvalidSettings(f"{len(photos)} photos were sent; at most {MAX_PHOTOS} are used")
    if generator is not None:
        generator.accepted(generation_request(request, photos))
        if request.scheduler is not None:
            scheduler_named(request.scheduler, like=generator.pipeline.scheduler)
    for role, content in photos:
        checked_photo(content, max_pixels=config.max_pixels, name=role)
