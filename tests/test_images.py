"""Every kind of photo, good and bad."""

import contextlib
import random
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from consistentid.errors import UnreadableImage
from consistentid.images import load_photo, photo_name

EXAMPLE = Path(__file__).parents[1] / "examples" / "photos" / "synthetic-woman.jpg"


@pytest.fixture
def colours() -> Image.Image:
    """Red above blue, 40 wide and 60 high."""
    values = np.zeros((60, 40, 3), np.uint8)
    values[:30, :, 0] = 255
    values[30:, :, 2] = 255
    return Image.fromarray(values)


def encoded(image: Image.Image, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


def test_path_text_bytes_image_and_array_give_the_same(colours: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    colours.save(path)
    expected = np.asarray(colours)
    for source in (path, str(path), path.read_bytes(), colours, expected, expected / 255, expected.astype("u2") * 257):
        photo = load_photo(source)
        assert photo.mode == "RGB"
        assert np.array_equal(photo, expected)


def test_the_result_shares_no_memory(colours: Image.Image) -> None:
    values = np.asarray(colours).copy()
    photo, from_array = load_photo(colours), load_photo(values)
    colours.paste("green", (0, 0, 40, 60))
    values[:] = 7
    assert photo.getpixel((0, 0)) == from_array.getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_turned_upright(colours: Image.Image, orientation: int) -> None:
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposes that exif_transpose reverts
    stored = colours if orientation == 1 else colours.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = load_photo(encoded(stored, format="PNG", exif=exif))
    assert photo.size == (40, 60)
    assert photo.getpixel((3, 3)) == (255, 0, 0)
    assert photo.getpixel((36, 56)) == (0, 0, 255)


def test_broken_exif_does_not_hide_a_good_photo(colours: Image.Image, caplog: pytest.LogCaptureFixture) -> None:
    photo = load_photo(encoded(colours, format="JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f"))
    assert photo.size == (40, 60)


def test_transparency_is_composited_on_white() -> None:
    for mode in ("RGBA", "LA"):
        clear = Image.new("RGBA", (8, 8), (10, 20, 30, 0))
        clear.paste((10, 10, 10, 255), (0, 0, 4, 8))
        photo = load_photo(clear.convert(mode))
        assert photo.getpixel((7, 7)) == (255, 255, 255), mode
        assert max(photo.getpixel((0, 0))) < 20, mode


def test_palette_with_and_without_a_transparent_colour(colours: Image.Image) -> None:
    palette = colours.convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    assert load_photo(encoded(palette, format="PNG")).getpixel((3, 3))[0] > 250
    blue = palette.getpixel((3, 50))
    assert load_photo(encoded(palette, format="PNG", transparency=blue)).getpixel((3, 50)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "HSV"])
def test_other_modes_become_rgb(colours: Image.Image, mode: str) -> None:
    photo = load_photo(colours.convert(mode))
    assert photo.mode == "RGB"
    assert photo.size == colours.size


def test_cmyk_jpeg_keeps_its_colours(colours: Image.Image) -> None:
    photo = load_photo(encoded(colours.convert("CMYK"), format="JPEG", quality=95))
    assert np.abs(np.asarray(photo, int) - np.asarray(colours, int)).mean() < 6


def test_sixteen_bit_and_float_grey_keep_their_light() -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(4, 0)
    for image in (
        Image.fromarray(ramp),
        Image.fromarray(ramp.astype(np.int32)),
        Image.fromarray(ramp / np.float32(65535)),
    ):
        photo = np.asarray(load_photo(encoded(image, format="TIFF")))
        assert np.abs(photo[0, :, 0].astype(int) - np.arange(256)).max() <= 1
    assert (
        np.abs(
            np.asarray(load_photo(encoded(Image.fromarray(ramp), format="PNG")))[0, :, 1].astype(int) - np.arange(256)
        ).max()
        <= 1
    )


def test_a_wide_gamut_profile_is_converted_and_a_broken_one_is_left_out(colours: Image.Image) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert (
        np.abs(
            np.asarray(load_photo(encoded(colours, format="PNG", icc_profile=srgb)), int) - np.asarray(colours)
        ).max()
        <= 2
    )
    broken = load_photo(encoded(colours, format="PNG", icc_profile=b"no profile"))
    assert np.array_equal(broken, colours)


def test_animations_give_their_first_frame(colours: Image.Image) -> None:
    frames = [colours, Image.new("RGB", colours.size, "green")]
    for kind in ("GIF", "PNG", "WEBP"):
        content = encoded(frames[0], format=kind, save_all=True, append_images=frames[1:], duration=100)
        red, green, _ = load_photo(content).getpixel((3, 3))
        assert red > 240
        assert green < 20


def test_long_photos_are_shrunk_and_keep_their_shape() -> None:
    photo = load_photo(Image.new("RGB", (9000, 3000)))
    assert photo.size == (4096, 1365)
    jpeg = load_photo(encoded(Image.new("RGB", (5000, 100)), format="JPEG"), max_side=1000)
    assert jpeg.size == (1000, 20)


def test_too_many_pixels_are_refused_before_decoding() -> None:
    bomb = encoded(Image.new("1", (30_000, 30_000)), format="PNG")
    with pytest.raises(UnreadableImage, match=r"too large|million pixels"):
        load_photo(bomb)
    with pytest.raises(UnreadableImage, match=r"100 x 200, more than 0\.01 million pixels"):
        load_photo(Image.new("RGB", (100, 200)), max_pixels=10_000)


def test_missing_folder_text_empty_and_truncated_files_are_refused(colours: Image.Image, tmp_path: Path) -> None:
    text = tmp_path / "notes.jpg"
    text.write_text("these are notes")
    empty = tmp_path / "empty.png"
    empty.touch()
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8))
    cases = {
        tmp_path / "absent.jpg": "does not exist",
        tmp_path: "is a folder",
        text: "no image",
        empty: "no image",
        b"": "no image",
        encoded(photo, format="JPEG")[:5000]: "truncated",
        encoded(photo, format="PNG")[:5000]: "truncated|broken",
    }
    for source, expected in cases.items():
        with pytest.raises(UnreadableImage, match=expected) as refusal:
            load_photo(source)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros(5, np.uint8),
        np.zeros((4, 4, 3), np.int64),
        np.full((4, 4, 3), 2.0),
        np.full((4, 4, 3), np.nan),
    ],
)
def test_arrays_that_are_no_photos_are_refused(values: np.ndarray) -> None:
    with pytest.raises(UnreadableImage):
        load_photo(values)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), kind=st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"]))
def test_damaged_files_give_a_photo_or_one_sentence(seed: int, kind: str) -> None:
    chance = random.Random(seed)
    noise = np.random.default_rng(seed).integers(0, 255, (24, 17, 3), np.uint8)
    content = bytearray(encoded(Image.fromarray(noise), format=kind))
    for _ in range(chance.randint(1, 12)):
        content[chance.randrange(len(content))] = chance.randrange(256)
    with contextlib.suppress(UnreadableImage):
        photo = load_photo(bytes(content[: chance.randint(1, len(content))]), max_pixels=1_000_000)
        assert photo.mode == "RGB"


def test_the_example_photo_reads() -> None:
    assert load_photo(EXAMPLE).mode == "RGB"
    assert photo_name(EXAMPLE) == "synthetic-woman.jpg"
    assert photo_name(b"") == "the photo"
