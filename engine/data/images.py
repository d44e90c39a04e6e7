"""Owns the decoding of image files and is the only place that does it; knows nothing of datasets, labels or models."""

from __future__ import annotations

import errno
import os
import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BufferedReader
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from engine.data import dicom
from engine.data.intensity import AS_STORED, Decoding, grey_levels
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
    **dict.fromkeys(dicom.SUFFIXES, "DICOM"),
}
MAX_MEGAPIXELS = 100
MAX_ASPECT_RATIO = 50
SQUARE_PROTOCOL = "draft at twice the side; shorter side bicubic, antialiased; centre crop; v1"

# Pillow's own limit only warns up to twice its value; ours is checked before anything is decoded.
Image.MAX_IMAGE_PIXELS = None

_FORMATS = (*(name for name in dict.fromkeys(FORMAT_OF_SUFFIX.values()) if name != "DICOM"), "GIF")
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
_NO_PIXELS = np.zeros((0, 0, 3), np.uint8)


@dataclass(frozen=True)
class Decoded:
    """Pixels `(h, w, 3)` uint8 RGB, and what their owner may want to know.

    Attributes:
        notes: what had to be done to the image.
        size: width and height as stored, before any resizing.
        mode: what the pixels were, such as `RGB`, `L`, `I;16` or `DICOM MONOCHROME2 12-bit`.
    """

    pixels: NDArray[np.uint8]
    notes: tuple[str, ...] = ()
    size: tuple[int, int] = (0, 0)
    mode: str = ""


def decode(path: Path, *, at_least: int | None = None, decoding: Decoding = AS_STORED) -> NDArray[np.uint8]:
    """The upright RGB pixels of an image file, recognised by its content and not by its name.

    Grey, palette, CMYK and alpha (on black) become RGB; EXIF rotation is applied; colour profiles are not. Grey images
    deeper than 8 bits become 8 bits through the window of `decoding`, DICOM through the file's own where it has one.

    Args:
        at_least: the shorter side in pixels that is needed; large JPEGs are then decoded at 1/2, 1/4 or 1/8 of their
            size as long as the shorter side stays as long, which is three times faster.
    Returns:
        `(h, w, 3)` uint8, writable.
    Raises:
        ImageError: this one file cannot be used (missing, empty, no regular file, not an image, cut short, too large).
        DataError: the user has to choose: a window for more than 8 bits a channel, or a frame of several.
    """
    with open_regular(path) as file, quiet_decoders():
        return decode_file(file, path, at_least=at_least, decoding=decoding).pixels


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


def decode_file(file: IO[bytes], path: Path, *, at_least: int | None = None, decoding: Decoding = AS_STORED) -> Decoded:
    """As `decode`, from an open file; `path` is for the messages and for the format that its suffix promises."""
    image, found = _load(file, path, at_least, decoding)
    return replace(found, pixels=np.array(image))


def decode_square(file: IO[bytes], path: Path, side: int, decoding: Decoding = AS_STORED) -> Decoded:
    """The centre square of the image: shorter side resized to `side` (bicubic, antialiased), then cropped.

    The same sizes and offsets as torchvision's `Resize(side)` and `CenterCrop(side)`, as the DINO protocol uses them.
    """
    # Decoding JPEGs at the side itself costs visible detail; at twice the side the mean difference is 1 grey level in
    # 255 on noise, and a 600 x 450 JPEG for a 73-pixel square takes half the time.
    image, found = _load(file, path, 2 * side, decoding)
    return replace(found, pixels=_square(image, side))


def square_of_array(values: NDArray[np.uint8], side: int) -> Decoded:
    """As `decode_square`, of pixels `(h, w)` or `(h, w, 3)` that lie in an array already."""
    image = Image.fromarray(values)
    return Decoded(_square(image.convert("RGB"), side), size=image.size, mode=image.mode)


@contextmanager
def quiet_decoders() -> Iterator[None]:
    """Silences the decoders' warnings about odd metadata; whatever spoils pixels is an error of ours.

    Entered once around a thread pool, not in its threads: `warnings` keeps its filters in one place for all threads.
    """
    with warnings.catch_warnings(action="ignore"):
        yield


def _square(image: Image.Image, side: int) -> NDArray[np.uint8]:
    width, height = image.size
    shorter = min(width, height)
    image = image.resize((side * width // shorter, side * height // shorter), Image.Resampling.BICUBIC)
    left, top = round((image.width - side) / 2), round((image.height - side) / 2)
    return np.array(image.crop((left, top, left + side, top + side)))


def _load(file: IO[bytes], path: Path, at_least: int | None, decoding: Decoding) -> tuple[Image.Image, Decoded]:
    """The image, upright and RGB, and all of `Decoded` but the pixels."""
    if dicom.is_dicom(file, path):
        return _load_dicom(file, path, decoding)
    try:
        with Image.open(file, formats=_FORMATS) as image:
            _refuse_size(*image.size, path)
            _refuse_deep_colour(image, path)
            _choose_frame(image, path, decoding.frame)
            if at_least is not None:
                image.draft(None, (at_least, at_least))
            size, mode = image.size, image.mode
            image.load()
            notes = tuple(_notes(image, path))
            upright = _upright(_to_8_bits(image, path, decoding), _orientation(image))
            return _to_rgb(upright), Decoded(_NO_PIXELS, notes, size, mode)
    except (ImageError, DataError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise ImageError(str(path), "not an image", _COPY_AGAIN) from error
    except Exception as error:  # hostile bytes make Pillow raise nearly anything: struct.error, KeyError, SyntaxError
        problem = "image is cut short" if "runcated" in str(error) else f"cannot be decoded ({error})"
        raise ImageError(str(path), problem, _COPY_AGAIN) from error


def _load_dicom(file: IO[bytes], path: Path, decoding: Decoding) -> tuple[Image.Image, Decoded]:
    width, height, n_frames = dicom.size_of_header(dicom.read_header(file, path), path)
    _refuse_size(width, height, path)
    _refuse_frame(n_frames, path, decoding.frame)
    pixels, mode = dicom.dicom_pixels(file, path, decoding)
    promised = FORMAT_OF_SUFFIX.get(path.suffix.lower(), "DICOM")
    notes = () if promised == "DICOM" else (f"DICOM by content, {promised} by name",)
    return Image.fromarray(pixels).convert("RGB"), Decoded(_NO_PIXELS, notes, (width, height), mode)


def _refuse_size(width: int, height: int, path: Path) -> None:
    """Refuses by what the header says, before any pixel is decoded."""
    if width * height > MAX_MEGAPIXELS * 1e6:
        seen = f"{width * height / 1e6:.6g} megapixels; limit {MAX_MEGAPIXELS}"
        raise ImageError(str(path), seen, "make the image smaller, or remove it")
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        ratio = max(width, height) / max(min(width, height), 1)
        seen = f"aspect ratio {ratio:.6g}; limit {MAX_ASPECT_RATIO}"
        raise ImageError(str(path), seen, "crop the image, or remove it")


def _refuse_deep_colour(image: ImageFile, path: Path) -> None:
    """Pillow gives 16-bit colour as its upper 8 bits, and only the raw mode tells; a window would come too late."""
    is_grey = image.mode == "F" or image.mode.startswith("I")
    if not is_grey and re.search(r";16[BLNS]", str([tile.args for tile in image.tile])):
        raise DataError(str(path), "16-bit colour image", "convert it to 8 bits a channel")


def _choose_frame(image: ImageFile, path: Path, frame: int | None) -> None:
    # A camera's MPO is a JPEG with previews behind it: its first frame is the photograph.
    n_frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    _refuse_frame(n_frames, path, frame)
    if n_frames > 1:
        image.seek(frame or 0)
        _refuse_size(*image.size, path)


def _refuse_frame(n_frames: int, path: Path, frame: int | None) -> None:
    if n_frames > 1 and frame is None:
        fix = "name the frame to take, counted from 0, or save it as an image of its own"
        raise DataError(str(path), f"{n_frames} frames; set data.frame = 0", fix)
    if frame is not None and frame >= n_frames > 1:
        raise ImageError(str(path), f"{n_frames} frames; none has the number {frame}", "give a smaller data.frame")


def _to_8_bits(image: Image.Image, path: Path, decoding: Decoding) -> Image.Image:
    """Grey images of 16 and 32 bits through the user's window: Pillow itself would make 255 of nearly everything."""
    if image.mode != "F" and not image.mode.startswith("I"):
        return image
    values = np.asarray(image)
    n_bad = int(np.count_nonzero(~np.isfinite(values)))
    if n_bad:
        raise ImageError(str(path), f"{n_bad} pixels are not numbers", "save the image again, or remove it")
    if decoding.window is None:
        raise dicom.needs_window(path, 16 if ";16" in image.mode else 32)
    return Image.fromarray(grey_levels(values, decoding.window))


def _notes(image: Image.Image, path: Path) -> Iterator[str]:
    promised = FORMAT_OF_SUFFIX.get(path.suffix.lower())
    found = "JPEG" if image.format == "MPO" else image.format
    if promised is not None and found != promised:
        yield f"{found} by content, {promised} by name"
    if image.mode == "CMYK":
        yield "CMYK, converted to RGB"
    if image.has_transparency_data:
        yield "alpha, composited on black"


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; `ImageOps.exif_transpose` would also rewrite the EXIF, and fails on odd tags."""
    try:
        found: int = image.getexif().get(_ORIENTATION_TAG, 1)
        return found
    except (SyntaxError, ValueError, struct.error):  # unreadable EXIF: the pixels are whole all the same
        return 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _to_rgb(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    with_alpha = image.convert("RGBA")
    black = Image.new("RGB", image.size)
    black.paste(with_alpha, mask=with_alpha.getchannel("A"))
    return black
