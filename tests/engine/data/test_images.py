"""The one decoder: what it turns into RGB, and each way in which a file can be unfit."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from engine.data.images import decode, decode_file, decode_square, open_regular, square_of_array
from engine.data.intensity import Decoding
from engine.data.options import Window
from engine.errors import DataError, ImageError
from tests.engine.data.making import noise, smooth

FORMATS: dict[str, dict[str, Any]] = {
    "jpg": {"format": "JPEG"},
    "progressive.jpg": {"format": "JPEG", "progressive": True},
    "png": {"format": "PNG"},
    "tif": {"format": "TIFF"},
    "lzw.tif": {"format": "TIFF", "compression": "tiff_lzw"},
    "bmp": {"format": "BMP"},
    "webp": {"format": "WEBP", "lossless": True},
}


def encoded(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, **options)
    return file.getvalue()


def png_header_only(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", ["png", "tif", "lzw.tif", "bmp", "webp"])
def test_lossless_formats_give_the_very_pixels(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    path.write_bytes(encoded(Image.fromarray(noise(1)), **FORMATS[suffix]))
    pixels = decode(path)
    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable
    np.testing.assert_array_equal(pixels, noise(1))


def test_jpeg_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    Image.fromarray(smooth(80, 60)).save(path, quality=95)
    np.testing.assert_allclose(decode(path).astype(int), smooth(80, 60), atol=6)


@pytest.mark.parametrize("suffix", FORMATS)
def test_half_an_image_is_refused(tmp_path: Path, suffix: str) -> None:
    content = encoded(Image.fromarray(noise(1, 160, 120)), **FORMATS[suffix])
    path = tmp_path / f"image.{suffix}"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ImageError) as caught:
        decode(path)
    if suffix in ("jpg", "progressive.jpg", "png", "tif", "bmp"):
        assert caught.value.problem == "image is cut short"


@settings(deadline=None, derandomize=True, max_examples=150)
@given(suffix=st.sampled_from(sorted(FORMATS)), data=st.data())
def test_damaged_bytes_raise_nothing_but_expected_failures(suffix: str, data: st.DataObject) -> None:
    content = bytearray(encoded(Image.fromarray(noise(1, 24, 24)), **FORMATS[suffix]))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    damaged = io.BytesIO(content[: data.draw(st.integers(1, len(content)))])
    with warnings.catch_warnings(action="ignore"):
        try:
            assert decode_file(damaged, Path("image.png")).pixels.shape[2] == 3
        except (ImageError, DataError) as error:
            assert str(error).startswith("image.png: ")


def test_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    path.touch()
    with pytest.raises(ImageError, match="file is empty"):
        decode(path)


def test_text_named_jpg(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    path.write_text("not a picture")
    with pytest.raises(ImageError, match="not an image"):
        decode(path)


@pytest.mark.parametrize(
    ("width", "height", "problem"),
    [
        (50_000, 50_000, "2500 megapixels; limit 100"),
        (12_000, 10_000, "120 megapixels; limit 100"),
        (1, 20_000, "aspect ratio 20000; limit 50"),
        (510, 10, "aspect ratio 51; limit 50"),
    ],
)
def test_absurd_sizes_are_refused_from_the_header(tmp_path: Path, width: int, height: int, problem: str) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(png_header_only(width, height))
    with pytest.raises(ImageError) as caught:
        decode(path)
    assert caught.value.problem == problem


def test_aspect_ratio_of_50_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(noise(1, 500, 10)).save(path)
    assert decode(path).shape == (10, 500, 3)


def test_fifo_is_never_opened(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    os.mkfifo(path)
    with pytest.raises(ImageError, match="not a regular file"):
        decode(path)


def test_device_and_folder_are_refused(tmp_path: Path) -> None:
    for path in (Path("/dev/zero"), tmp_path):
        with pytest.raises(ImageError, match="not a regular file"):
            decode(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such file"):
        decode(tmp_path / "image.jpg")


def test_link_to_itself(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    path.symlink_to(path)
    with pytest.raises(ImageError, match=r"cannot be read \(Too many levels of symbolic links\)"):
        decode(path)


def test_permission_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(noise(1)).save(path)

    def refuse(*_: object) -> int:  # chmod would not hold back a test that runs as root
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ImageError, match="permission denied"):
        decode(path)


def test_grey_palette_and_black_and_white_become_rgb(tmp_path: Path) -> None:
    grey = Image.fromarray(noise(1)).convert("L")
    for mode in ("L", "P", "1"):
        path = tmp_path / f"{mode}.png"
        image = grey.convert(mode)
        image.save(path)
        np.testing.assert_array_equal(decode(path), np.asarray(image.convert("RGB")))


def test_cmyk_is_converted_and_noted(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(path)
    with open_regular(path) as file:
        decoded = decode_file(file, path)
    assert decoded.pixels[0, 0].tolist() == [255, 0, 0]
    assert decoded.notes == ("CMYK, converted to RGB",)


def test_alpha_is_composited_on_black_and_noted(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    pixels = np.array([[[200, 100, 50, 255], [200, 100, 50, 0], [200, 100, 50, 51]]], dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    with open_regular(path) as file:
        decoded = decode_file(file, path)
    assert decoded.pixels[0].tolist() == [[200, 100, 50], [0, 0, 0], [40, 20, 10]]
    assert decoded.notes == ("alpha, composited on black",)


def test_transparent_colour_of_a_palette_is_black(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    image.save(path, transparency=1)
    assert decode(path)[0].tolist() == [[10, 20, 30], [0, 0, 0]]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_refused_with_its_fix(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(np.full((8, 8), 40_000, dtype=np.uint16)).save(path)
    with pytest.raises(DataError, match="16-bit image") as caught:
        decode(path)
    assert caught.value.problem == '16-bit image; set data.window = [low, high] or "auto"'
    assert caught.value.fix.startswith("name the intensities that become black and white, as in window = [0, 4095]")


def test_16_bit_rgb_png_is_refused(tmp_path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = b"".join(b"\0" + b"\x12\x34" * 3 * 4 for _ in range(4))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0))
    path = tmp_path / "image.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    with pytest.raises(DataError) as caught:
        decode(path)
    assert caught.value.problem == "16-bit colour image"
    with pytest.raises(DataError, match="16-bit colour image"):
        decode(path, decoding=Decoding("auto"))


def test_floating_point_tiff_needs_a_window(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    Image.fromarray(np.array([[-1.0, 0.0, 0.5, 1.0, 2.0]], dtype=np.float32)).save(path)
    with pytest.raises(DataError) as caught:
        decode(path)
    assert caught.value.problem == '32-bit image; set data.window = [low, high] or "auto"'
    assert decode(path, decoding=Decoding((0.0, 1.0)))[0, :, 0].tolist() == [0, 0, 128, 255, 255]


@pytest.mark.parametrize("window", [None, "auto", (0.0, 1.0)])
def test_pixels_that_are_not_numbers(tmp_path: Path, window: Window | None) -> None:
    path = tmp_path / "image.tif"
    values = np.zeros((8, 8), dtype=np.float32)
    values[0], values[1, :4] = np.nan, np.inf
    Image.fromarray(values).save(path)
    with pytest.raises(ImageError) as caught:
        decode(path, decoding=Decoding(window))
    assert caught.value.problem == "12 pixels are not numbers"


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_through_a_window(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    values = np.array([[0, 999, 1000, 1255, 1510, 1511, 65_535]], dtype=np.uint16)
    Image.fromarray(values).save(path)
    pixels = decode(path, decoding=Decoding((1000.0, 1510.0)))
    assert pixels.shape == (1, 7, 3)
    assert pixels[0].tolist() == [[level] * 3 for level in (0, 0, 0, 128, 255, 255, 255)]
    # "auto" is the image's own: the 0.5th and the 99.5th percentile.
    low, high = np.percentile(values, (0.5, 99.5))
    expected = np.rint(255 * np.clip((values - low) / (high - low), 0, 1))
    np.testing.assert_array_equal(decode(path, decoding=Decoding("auto"))[:, :, 0], expected)


def test_a_window_does_not_touch_8_bit_images(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(noise(1)).save(path)
    np.testing.assert_array_equal(decode(path, decoding=Decoding((10.0, 20.0))), noise(1))


def test_bmp_of_16_bits_a_pixel_is_no_16_bit_image(tmp_path: Path) -> None:
    header = b"BM" + struct.pack("<IHHI", 14 + 40 + 8, 0, 0, 54)
    info = struct.pack("<IiiHHIIiiII", 40, 2, 2, 1, 16, 0, 8, 0, 0, 0, 0)
    path = tmp_path / "image.bmp"
    path.write_bytes(header + info + struct.pack("<HHHH", 0x7FFF, 0, 0x7C00, 0x001F))
    assert decode(path).tolist() == [[[255, 0, 0], [0, 0, 255]], [[255, 255, 255], [0, 0, 0]]]


@pytest.mark.parametrize("suffix", ["gif", "tif", "png", "webp"])
def test_several_frames_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    frames = [Image.fromarray(noise(seed)) for seed in range(6)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    with pytest.raises(DataError) as caught:
        decode(path)
    assert caught.value.problem == "6 frames; set data.frame = 0"


@pytest.mark.parametrize("suffix", ["tif", "png", "webp"])
def test_the_frame_that_is_asked_for(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    frames = [Image.fromarray(noise(seed)) for seed in range(4)]
    frames[0].save(path, save_all=True, append_images=frames[1:], **({"lossless": True} if suffix == "webp" else {}))
    for number in (0, 3):
        np.testing.assert_array_equal(decode(path, decoding=Decoding(frame=number)), noise(number))
    with pytest.raises(ImageError) as caught:
        decode(path, decoding=Decoding(frame=4))
    assert caught.value.problem == "4 frames; none has the number 4"


def test_an_image_of_one_frame_needs_no_number(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(noise(1)).save(path)
    np.testing.assert_array_equal(decode(path, decoding=Decoding(frame=3)), noise(1))


def test_first_picture_of_a_camera_mpo_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    photograph, preview = Image.fromarray(smooth(80, 60)), Image.new("RGB", (80, 60))
    photograph.save(path, format="MPO", save_all=True, append_images=[preview], quality=95)
    with open_regular(path) as file:
        decoded = decode_file(file, path)
    np.testing.assert_allclose(decoded.pixels.astype(int), smooth(80, 60), atol=6)
    assert decoded.notes == ()


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(tmp_path: Path, suffix: str, orientation: int) -> None:
    upright = smooth(48, 32)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: upright.swapaxes(0, 1)[::-1, ::-1],
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif, quality=95)
    pixels = decode(path)
    assert pixels.shape == upright.shape
    np.testing.assert_allclose(pixels.astype(int), upright, atol=12)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("exif", [b"Exif\0\0garbage that is no TIFF header", b"Exif\0\0MM\0*\0"])
def test_unreadable_exif_costs_no_image(tmp_path: Path, suffix: str, exif: bytes) -> None:
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(smooth(48, 32)).save(path, exif=exif)
    assert decode(path).shape == (32, 48, 3)


def test_png_named_jpg_is_accepted_and_noted(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    Image.fromarray(noise(1)).save(path, format="PNG")
    with open_regular(path) as file:
        decoded = decode_file(file, path)
    np.testing.assert_array_equal(decoded.pixels, noise(1))
    assert decoded.notes == ("PNG by content, JPEG by name",)


def test_large_jpeg_is_decoded_smaller_but_never_below_what_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    Image.fromarray(smooth(800, 640)).save(path, quality=95)
    assert decode(path, at_least=160).shape == (160, 200, 3)
    assert decode(path, at_least=161).shape == (320, 400, 3)
    assert decode(path, at_least=641).shape == (640, 800, 3)


@pytest.mark.parametrize(("width", "height"), [(120, 90), (90, 121), (101, 64), (64, 64), (30, 20)])
def test_square_is_resize_and_centre_crop(tmp_path: Path, width: int, height: int) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(noise(1, width, height)).save(path)
    with open_regular(path) as file:
        pixels = decode_square(file, path, 48).pixels
    scale = 48 / min(width, height)
    resized = Image.fromarray(noise(1, width, height)).resize(
        (int(width * scale + 1e-9), int(height * scale + 1e-9)), Image.Resampling.BICUBIC
    )
    top, left = round((resized.height - 48) / 2), round((resized.width - 48) / 2)
    np.testing.assert_array_equal(pixels, np.asarray(resized)[top : top + 48, left : left + 48])


@pytest.mark.parametrize("is_grey", [True, False])
def test_square_of_an_array_is_that_of_its_file(tmp_path: Path, is_grey: bool) -> None:
    values = noise(1, 40, 30)[:, :, 0] if is_grey else noise(1, 40, 30)
    path = tmp_path / "image.png"
    Image.fromarray(values).save(path)
    with open_regular(path) as file:
        expected = decode_square(file, path, 16)
    found = square_of_array(values, 16)
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    assert (found.size, found.mode, found.notes) == (expected.size, expected.mode, ()) == ((40, 30), found.mode, ())


def test_square_is_antialiased(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    checks = np.indices((128, 128)).sum(axis=0) % 2 * 255
    Image.fromarray(checks.astype(np.uint8)).save(path)
    with open_regular(path) as file:
        pixels = decode_square(file, path, 16).pixels
    assert np.abs(pixels.astype(int) - 127).max() <= 6


def test_square_of_a_large_jpeg_is_close_to_the_one_decoded_whole(tmp_path: Path) -> None:
    detailed = np.asarray(Image.fromarray(noise(1, 75, 56)).resize((600, 450), Image.Resampling.BICUBIC))
    jpeg_path, png_path = tmp_path / "image.jpg", tmp_path / "image.png"
    Image.fromarray(detailed).save(jpeg_path, quality=95)
    Image.fromarray(decode(jpeg_path)).save(png_path)
    squares = []
    for path in (jpeg_path, png_path):
        with open_regular(path) as file:
            squares.append(decode_square(file, path, 73).pixels.astype(int))
    assert np.abs(squares[0] - squares[1]).mean() < 2
