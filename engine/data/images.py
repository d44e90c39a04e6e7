"""Owns the decoding of image files and is the only place that does it; knows nothing of datasets, labels or models."""

from __future__ import annotations

import errno
import os
import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from engine.errors import DataError, ImageError
from engine.files import open_file

FORMAT_OF_SUFFIX = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".webp": "WEBP",
}
MAX_MEGAPIXELS = 100
MAX_ASPECT_RATIO = 50
SQUARE_PROTOCOL = "draft at twice the side; shorter side bicubic, antialiased; centre crop; v1"

# Pillow's own limit only warns up to twice its value; ours is checked before anything is decoded.
Image.MAX_IMAGE_PIXELS = None

_FORMATS = (*dict.fromkeys(FORMAT_OF_SUFFIX.values()), "GIF")
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_COPY_AGAIN = "copy the file again from where it came, or remove it"


@dataclass(frozen=True)
class Decoded:
    """Pixels `(h, w, 3)` uint8 RGB, and what had to be done to the image that its owner may want to know."""

    pixels: NDArray[np.uint8]
    notes: tuple[str, ...] = ()


def decode(path: Path, *, at_least: int | None = None) -> NDArray[np.uint8]:
    """The upright RGB pixels of an image file, recognised by its content and not by its name.

    Grey, palette, CMYK and alpha (on black) become RGB; EXIF rotation is applied; colour profiles are not.

    Args:
        at_least: the shorter side in pixels that is needed; large JPEGs are then decoded at 1/2, 1/4 or 1/8 of their
            size as long as the shorter side stays as long, which is three times faster.
    Returns:
        `(h, w, 3)` uint8, writable.
    Raises:
        ImageError: this one file cannot be used (missing, empty, no regular file, not an image, cut short, too large).
        DataError: the user has to choose: more than 8 bits a channel, or several frames.
    """
    with open_regular(path) as file, quiet_pillow():
        return decode_file(file, path, at_least=at_least).pixels


def open_regular(path: Path) -> BufferedReader:
    """Opens a regular, non-empty file for reading; a FIFO or a device is never opened, so this cannot block.

    Raises:
        ImageError: there is no such file, or it is empty, no regular file, or unreadable.
    """
    try:
        file = open_file(path)
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise ImageError(str(path), "not a regular file", "remove it") from error
        raise unreadable(error, path) from error
    if os.fstat(file.fileno()).st_size == 0:
        file.close()
        raise ImageError(str(path), "file is empty", _COPY_AGAIN)
    return file


def unreadable(error: OSError, path: Path) -> ImageError:
    """The system's refusal to give a file's bytes, in the user's words."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return ImageError(str(path), "permission denied", "make the file readable, or remove it")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return ImageError(str(path), "no such file", _COPY_AGAIN)
    return ImageError(str(path), f"cannot be read ({error.strerror or error})", _COPY_AGAIN)


def decode_file(file: IO[bytes], path: Path, *, at_least: int | None = None) -> Decoded:
    """As `decode`, from an open file; `path` is for the messages and for the format that its suffix promises."""
    image, notes = _load(file, path, at_least)
    return Decoded(np.array(image), notes)


def decode_square(file: IO[bytes], path: Path, side: int) -> Decoded:
    """The centre square of the image: shorter side resized to `side` (bicubic, antialiased), then cropped.

    The same sizes and offsets as torchvision's `Resize(side)` and `CenterCrop(side)`, as the DINO protocol uses them.
    """
    # Decoding JPEGs at the side itself costs visible detail; at twice the side the mean difference is 1 grey level in
    # 255 on noise, and a 600 x 450 JPEG for a 73-pixel square takes half the time.
    image, notes = _load(file, path, 2 * side)
    width, height = image.size
    shorter = min(width, height)
    image = image.resize((side * width // shorter, side * height // shorter), Image.Resampling.BICUBIC)
    left, top = round((image.width - side) / 2), round((image.height - side) / 2)
    return Decoded(np.array(image.crop((left, top, left + side, top + side))), notes)


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Silences Pillow's warnings about odd metadata; whatever spoils pixels is an error of ours.

    Entered once around a thread pool, not in its threads: `warnings` keeps its filters in one place for all threads.
    """
    with warnings.catch_warnings(action="ignore"):
        yield


def _load(file: IO[bytes], path: Path, at_least: int | None) -> tuple[Image.Image, tuple[str, ...]]:
    """The image, upright and RGB, and the notes on it."""
    try:
        with Image.open(file, formats=_FORMATS) as image:
            _refuse_unfit(image, path)
            if at_least is not None:
                image.draft(None, (at_least, at_least))
            image.load()
            notes = tuple(_notes(image, path))
            return _to_rgb(_to_upright(image)), notes
    except (ImageError, DataError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise ImageError(str(path), "not an image", _COPY_AGAIN) from error
    except Exception as error:  # hostile bytes make Pillow raise nearly anything: struct.error, KeyError, SyntaxError
        problem = "image is cut short" if "runcated" in str(error) else f"cannot be decoded ({error})"
        raise ImageError(str(path), problem, _COPY_AGAIN) from error


def _refuse_unfit(image: ImageFile, path: Path) -> None:
    """Refuses by what the header says, before any pixel is decoded."""
    width, height = image.size
    if width * height > MAX_MEGAPIXELS * 1e6:
        seen = f"{width * height / 1e6:.6g} megapixels; limit {MAX_MEGAPIXELS}"
        raise ImageError(str(path), seen, "make the image smaller, or remove it")
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        ratio = max(width, height) / max(min(width, height), 1)
        seen = f"aspect ratio {ratio:.6g}; limit {MAX_ASPECT_RATIO}"
        raise ImageError(str(path), seen, "crop the image, or remove it")
    # Pillow converts deeper images by clipping: a 16-bit PNG becomes 255 everywhere. 16-bit RGB hides in the raw mode.
    raw_modes = str([tile.args for tile in image.tile])
    if image.mode in ("I", "F") or image.mode.startswith("I;") or re.search(r";16[BLNS]", raw_modes):
        bits = "16" if ";16" in image.mode + raw_modes else "32"
        raise DataError(str(path), f"{bits}-bit image", "convert it to 8 bits with the intensity window you need")
    # A camera's MPO is a JPEG with previews behind it: its first frame is the photograph.
    n_frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if n_frames > 1:
        raise DataError(str(path), f"{n_frames} frames", "save the frame you want as an image of its own")


def _notes(image: Image.Image, path: Path) -> Iterator[str]:
    promised = FORMAT_OF_SUFFIX.get(path.suffix.lower())
    found = "JPEG" if image.format == "MPO" else image.format
    if promised is not None and found != promised:
        yield f"{found} by content, {promised} by name"
    if image.mode == "CMYK":
        yield "CMYK, converted to RGB"
    if image.has_transparency_data:
        yield "alpha, composited on black"


def _to_upright(image: Image.Image) -> Image.Image:
    """Applies the EXIF orientation; `ImageOps.exif_transpose` would also rewrite the EXIF, and fails on odd tags."""
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except (SyntaxError, ValueError, struct.error):  # unreadable EXIF: the pixels are whole all the same
        return image
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _to_rgb(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    with_alpha = image.convert("RGBA")
    black = Image.new("RGB", image.size)
    black.paste(with_alpha, mask=with_alpha.getchannel("A"))
    return black
