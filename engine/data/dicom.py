"""Decodes DICOM files to upright grey or colour pixels; knows nothing of datasets. `engine.data.images` is its door.

Modality LUT, then the user's window or the file's own VOI window, then the inversion of MONOCHROME1.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi
from pydicom.pixels.utils import pixel_array
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from engine.data.dicom_child import pixels_in_child
from engine.data.intensity import Decoding, grey_levels
from engine.errors import DataError, ImageError

SUFFIXES = (".dcm", ".dicom", ".ima")
_MAGIC_AT, _MAGIC = 128, b"DICM"
_META_GROUP = 2
_GREY = ("MONOCHROME1", "MONOCHROME2")
_COPY_AGAIN = "copy the file again from where it came, or remove it"
_EXPORT = "export the image as an 8-bit PNG, or remove it"


def is_dicom(file: IO[bytes], path: Path) -> bool:
    """Whether an open file is DICOM: by its magic number, or by its suffix where it has no preamble."""
    head = file.read(_MAGIC_AT + len(_MAGIC))
    file.seek(0)
    if head[_MAGIC_AT:] == _MAGIC:
        return True
    # Without a preamble, DICOM begins with an element of a low, even group: (0002,xxxx) or (0008,xxxx).
    return path.suffix.lower() in SUFFIXES and head[:1] in (b"\x02", b"\x08") and head[1:2] == b"\x00"


def read_header(file: IO[bytes], path: Path) -> pydicom.FileDataset:
    """Everything but the pixels.

    Raises:
        ImageError: not DICOM, damaged, or deflated as a whole.
    """
    with _explained(path):
        _refuse_deflated(file, path)
        header = pydicom.dcmread(file, force=path.suffix.lower() in SUFFIXES, stop_before_pixels=True)
    file.seek(0)
    return header


def _refuse_deflated(file: IO[bytes], path: Path) -> None:
    """Refuses what the reader would inflate without a limit: a small file could fill the memory."""
    has_preamble = file.read(_MAGIC_AT + len(_MAGIC))[_MAGIC_AT:] == _MAGIC
    if not has_preamble:
        file.seek(0)
    meta = read_dataset(cast(BinaryIO, file), False, True, stop_when=lambda tag, *_: tag.group != _META_GROUP)
    file.seek(0)
    if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        raise ImageError(str(path), "DICOM deflated as a whole, which is not read", _EXPORT)


def header_text(header: pydicom.FileDataset, keyword: str) -> str:
    """The value of an element as text; empty where it is absent or unreadable."""
    try:
        value = header.get(keyword)
    except Exception:  # values are parsed on access, and hostile bytes raise nearly anything
        return ""
    return "" if value is None else str(value).strip()


def size_of_header(header: pydicom.FileDataset, path: Path) -> tuple[int, int, int]:
    """Width, height and number of frames.

    Raises:
        ImageError: the header names none, so there is no image.
    """
    with _explained(path):
        if not ("Rows" in header and "Columns" in header):
            raise ImageError(str(path), "DICOM without pixel data", "remove it")
        return int(header.Columns), int(header.Rows), int(header.get("NumberOfFrames") or 1)


def dicom_pixels(file: IO[bytes], path: Path, decoding: Decoding) -> tuple[NDArray[np.uint8], str]:
    """The pixels `(h, w)` or `(h, w, 3)` uint8, and what they were in words, such as `DICOM MONOCHROME2 12-bit`.

    The size and the number of frames must have been checked before.

    Raises:
        ImageError: damaged, without pixels, or compressed in a way that cannot be read.
        DataError: deeper than 8 bits, and neither the file nor the user gives a window.
    """
    with _explained(path):
        dataset = pydicom.dcmread(file, force=path.suffix.lower() in SUFFIXES)
        if "TransferSyntaxUID" not in dataset.file_meta:
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
            raise ImageError(str(path), "DICOM without pixel data", "remove it")
        kind, bits = str(dataset.PhotometricInterpretation), int(dataset.get("BitsStored") or 32)
        stored = _stored(file, dataset, decoding.frame or 0)
        words = f"DICOM {kind} {bits}-bit"
        if kind in _GREY:
            return _grey(stored, dataset, bits, decoding, path), words
        if kind == "PALETTE COLOR":
            # Palette entries are 8 or 16 bits wide, whatever the indices are.
            deep = apply_color_lut(stored, dataset)
            return (deep >> 8 if deep.dtype.itemsize > 1 else deep).astype(np.uint8), words
        if bits > 8:
            raise DataError(str(path), f"{bits}-bit colour image", "convert it to 8 bits a channel")
        return np.ascontiguousarray(stored, np.uint8), words


def _stored(file: IO[bytes], dataset: pydicom.FileDataset, frame: int) -> NDArray[Any]:
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated and syntax != RLELossless:
        file.seek(0)
        return pixels_in_child(file.read(), frame)
    return pixel_array(dataset, index=frame)


def _grey(
    stored: NDArray[Any], dataset: pydicom.FileDataset, bits: int, decoding: Decoding, path: Path
) -> NDArray[np.uint8]:
    values = apply_modality_lut(stored, dataset)
    n_bad = int(np.count_nonzero(~np.isfinite(values)))
    if n_bad:
        raise ImageError(str(path), f"{n_bad} pixels are not numbers", "export the image again, or remove it")
    if decoding.window is not None:
        levels = grey_levels(values, decoding.window)
    elif "VOILUTSequence" in dataset and len(dataset.VOILUTSequence):
        levels = _through_lut(values, dataset)
    elif "WindowCenter" in dataset and "WindowWidth" in dataset:
        levels = _through_window(values, dataset)
    elif bits <= 8 and "FloatPixelData" not in dataset:
        levels = grey_levels(stored.astype(np.int64), (0.0, float(2**bits - 1)))
    else:
        raise needs_window(path, bits)
    return 255 - levels if dataset.PhotometricInterpretation == "MONOCHROME1" else levels


def needs_window(path: Path, bits: int) -> DataError:
    """What to say of an image deeper than 8 bits for which nobody says what is black and what is white."""
    problem = f'{bits}-bit image; set data.window = [low, high] or "auto"'
    fix = 'name the intensities that become black and white, as in window = [0, 4095]; "auto" takes each image\'s own'
    return DataError(str(path), problem, fix)


def _through_lut(values: NDArray[Any], dataset: pydicom.FileDataset) -> NDArray[np.uint8]:
    top = 2 ** int(dataset.VOILUTSequence[0].LUTDescriptor[2]) - 1
    return grey_levels(apply_voi(values, dataset), (0.0, float(top)))


def _through_window(values: NDArray[Any], dataset: pydicom.FileDataset) -> NDArray[np.uint8]:
    """The first VOI window; PS3.3 C.11.2.1.2 (linear), C.11.2.1.3.2 (linear exact), C.11.2.1.3.1 (sigmoid)."""
    centre, width = (_first(dataset[name].value) for name in ("WindowCenter", "WindowWidth"))
    match str(dataset.get("VOILUTFunction") or "LINEAR"):
        case "SIGMOID":
            exponent = np.clip(-4.0 * (values.astype(np.float64) - centre) / width, -700, 700)
            return grey_levels(1.0 / (1.0 + np.exp(exponent)), (0.0, 1.0))
        case "LINEAR_EXACT":
            low, high = centre - width / 2, centre + width / 2
        case _:
            low, high = centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2
    if high <= low:  # a width of 1: everything above is white
        return np.where(values > low, np.uint8(255), np.uint8(0))
    return grey_levels(values, (low, high))


def _first(value: Any) -> float:
    """A number, or the first of several: windows come in lists, of which the first is the default view."""
    return float(value[0] if isinstance(value, list | pydicom.multival.MultiValue) else value)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turns what pydicom raises into one error of ours: hostile bytes make it raise nearly anything."""
    try:
        yield
    except (ImageError, DataError, MemoryError):
        raise
    except InvalidDicomError as error:
        raise ImageError(str(path), "not an image", _COPY_AGAIN) from error
    except Exception as error:
        text = " ".join(str(error).split())
        if "less than expected" in text or "runcated" in text or isinstance(error, EOFError):
            raise ImageError(str(path), "image is cut short", _COPY_AGAIN) from error
        raise ImageError(str(path), f"DICOM that cannot be decoded ({text[:120]})", _EXPORT) from error
