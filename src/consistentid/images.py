"""Photos as users have them -> upright 8-bit RGB, or one sentence that says why not."""

import hashlib
import logging
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from consistentid.errors import UnreadableImage

logger = logging.getLogger(__name__)

MAX_PIXELS = 150_000_000  # refused beyond this: a photo of 14,000 x 10,000 pixels, or a decompression bomb
MAX_SIDE = 4096  # px; longer photos are shrunk, nothing in this library looks closer

PhotoSource = str | Path | bytes | Image.Image | np.ndarray


def load_photo(source: PhotoSource, *, max_pixels: int = MAX_PIXELS, max_side: int = MAX_SIDE) -> Image.Image:
    """Read a photo in any usual form: EXIF turned upright, transparency on white, one frame, sRGB, 8 bits.

    Args:
        source: path, file content, PIL image, or array (h, w), (h, w, 3) or (h, w, 4) of bytes, 16-bit numbers or
            floats in 0..1.
        max_pixels: photos with more pixels are refused before they are decoded.
        max_side: photos longer than this are shrunk to it.

    Returns:
        An RGB image that shares no memory with the source.

    Raises:
        UnreadableImage: the file is missing, truncated, too large or no image.
    """
    name = photo_name(source)
    if isinstance(source, np.ndarray):
        return _finish(_from_array(source, name), name, max_pixels=max_pixels, max_side=max_side)
    if isinstance(source, Image.Image):
        return _finish(source, name, max_pixels=max_pixels, max_side=max_side)
    with opened(source, max_pixels=max_pixels) as image:
        if image.format == "JPEG":
            image.draft(None, (max_side, max_side))  # decodes large JPEGs at a half, quarter or eighth: quicker
        return _finish(image, name, max_pixels=max_pixels, max_side=max_side)


def opened(source: str | Path | bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """A picture as it is in its file, with its metadata, not decoded yet.

    Raises:
        UnreadableImage: the file is missing, too large or no image.
    """
    name = photo_name(source)
    image = _open(source, name)
    try:
        _check_size(image, name, max_pixels)
    except UnreadableImage:
        image.close()
        raise
    return image


def pixels_sha256(pixels: UInt8[np.ndarray, "h w 3"]) -> str:
    """Of the pixels and their size, so that it does not matter whether they came from a file or from memory."""
    return arrays_sha256(np.asarray(pixels.shape, np.int64), pixels)


def arrays_sha256(*arrays: np.ndarray) -> str:
    """Of arrays, their types and shapes."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def photo_name(source: PhotoSource) -> str:
    """How messages call a photo: its file name where it has one."""
    if isinstance(source, str | Path):
        return Path(source).name or str(source)
    filename = getattr(source, "filename", None)  # PIL sets it on images opened from a path
    if filename:
        return Path(str(filename)).name
    return "the photo"


def _open(source: str | Path | bytes, name: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # max_pixels decides
            return Image.open(BytesIO(source) if isinstance(source, bytes) else Path(source).expanduser())
    except FileNotFoundError as error:
        raise UnreadableImage(f"{source!s} does not exist; check the path") from error
    except IsADirectoryError as error:
        raise UnreadableImage(f"{source!s} is a folder; give the path of one photo") from error
    except PermissionError as error:
        raise UnreadableImage(f"{source!s} may not be read; check its permissions") from error
    except UnidentifiedImageError as error:
        raise UnreadableImage(f"{name} is no image that can be read; convert it to JPEG or PNG") from error
    except Image.DecompressionBombError as error:
        raise UnreadableImage(f"{name} is too large to be decoded safely; shrink it first") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise UnreadableImage(f"{name} is a broken image ({error}); save it again as JPEG or PNG") from error


def _check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise UnreadableImage(
            f"{name} is {image.width} x {image.height}, more than {max_pixels / 1e6:g} million pixels; shrink it first"
        )


def _finish(image: Image.Image, name: str, *, max_pixels: int, max_side: int) -> Image.Image:
    _check_size(image, name, max_pixels)
    try:
        image.load()
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise UnreadableImage(f"{name} is truncated or broken ({error}); save it again as JPEG or PNG") from error
    if min(image.size) < 1:
        raise UnreadableImage(f"{name} is empty; give a photo with a face")
    rgb = _to_rgb(_upright(image, name), name)
    if max(rgb.size) > max_side:
        rgb.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    return rgb


def _upright(image: Image.Image, name: str) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception as error:  # noqa: BLE001  Pillow raises many kinds for broken EXIF; the pixels are still good
        logger.warning("%s has broken EXIF data and is not turned: %s", name, error)
        return image.copy()


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    """Any mode -> RGB without alpha; never the same object."""
    if image.mode[0] in "IF":
        return _deep_grey(image, name).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    managed = _to_srgb(image, name)
    if managed is not None:
        return managed
    try:
        return image.copy() if image.mode == "RGB" else image.convert("RGB")
    except ValueError as error:
        raise UnreadableImage(f"{name} has colours of kind {image.mode}; convert it to RGB") from error


def _to_srgb(image: Image.Image, name: str) -> Image.Image | None:
    """Colours converted by the embedded profile; None when there is none that can be used."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "CMYK", "L"):
        return None
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        logger.warning("the colour profile of %s cannot be used and is left out: %s", name, error)
        return None


def _deep_grey(image: Image.Image, name: str) -> Image.Image:
    """16-bit, 32-bit and float grey -> 8-bit grey, by the range that the values fill."""
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise UnreadableImage(f"{name} holds values that are no numbers; save it again as an 8-bit image")
    if image.mode == "F" and values.max() <= 1:
        values = values * 255
    elif values.max() > 255 or image.mode.startswith("I;16"):
        values = values / 257
    return Image.fromarray(np.clip(np.round(values), 0, 255).astype(np.uint8))


def _from_array(values: np.ndarray, name: str) -> Image.Image:
    channels = values.shape[2] if values.ndim == 3 else 1
    if values.ndim not in (2, 3) or channels not in (1, 3, 4) or values.size == 0:
        raise UnreadableImage(f"an array of shape {values.shape} is no photo; give (h, w), (h, w, 3) or (h, w, 4)")
    if values.dtype == np.uint16:
        values = np.round(values / 257)
    elif np.issubdtype(values.dtype, np.floating):
        if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
            raise UnreadableImage(f"{name} is an array of floats outside 0..1; scale it")
        values = np.round(values * 255)
    elif values.dtype != np.uint8:
        raise UnreadableImage(f"{name} is an array of {values.dtype}; give uint8, uint16 or floats in 0..1")
    return Image.fromarray(
        np.ascontiguousarray(
            values.astype(np.uint8).squeeze(2) if channels == 1 and values.ndim == 3 else values.astype(np.uint8)
        )
    )
