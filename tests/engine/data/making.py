"""Makes small real datasets for the tests of `engine.data`; knows nothing of what a test wants to prove."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.uid import ExplicitVRLittleEndian

ISIC_CLASSES = ("MEL", "NV", "BCC")


def noise(seed: int, width: int = 16, height: int = 12) -> NDArray[np.uint8]:
    """`(height, width, 3)` uint8, other pixels for every seed."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(width: int, height: int) -> NDArray[np.uint8]:
    """`(height, width, 3)` uint8 without high frequencies, so that JPEG hardly changes it; no two corners alike."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return (255 * np.stack([x, y, (x + y) / 2], axis=-1)).astype(np.uint8)


def save_image(path: Path, seed: int) -> Path:
    """A small image, of the format that the suffix names, with other content for every seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(seed)).save(path)
    return path


def make_folder_dataset(root: Path, n_of_class: Mapping[str, int], first_seed: int = 0) -> Path:
    """A folder a class; images number on from `first_seed`, so that no two are alike."""
    seed = first_seed
    for name, n in n_of_class.items():
        for _ in range(n):
            save_image(root / name / f"{seed:04d}.png", seed)
            seed += 1
    return root


def make_isic_dataset(root: Path, classes_of_part: Mapping[str, Sequence[str]], first_seed: int = 0) -> Path:
    """ISIC2018 task 3: for every part ("Training", …) the class of each of its images."""
    number = first_seed
    for part, names in classes_of_part.items():
        lines = [",".join(("image", *ISIC_CLASSES))]
        for name in names:
            save_image(root / f"ISIC2018_Task3_{part}_Input" / f"ISIC_{number:07d}.jpg", number)
            lines.append(",".join((f"ISIC_{number:07d}", *("1.0" if name == one else "0.0" for one in ISIC_CLASSES))))
            number += 1
        write_ground_truth(root, part, lines)
    return root


def write_ground_truth(root: Path, part: str, lines: Sequence[str]) -> Path:
    """Writes `ISIC2018_Task3_<part>_GroundTruth.csv` in its own folder, as the published archive unpacks."""
    return write_lines(root / f"ISIC2018_Task3_{part}_GroundTruth" / f"ISIC2018_Task3_{part}_GroundTruth.csv", lines)


def write_lines(path: Path, lines: Sequence[str]) -> Path:
    """Writes a text file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def save_images(root: Path, names: Iterable[str], first_seed: int = 0) -> Path:
    """Images of these paths below `root`, no two alike."""
    for seed, name in enumerate(names, start=first_seed):
        save_image(root / name, seed)
    return root


def write_table(path: Path, header: str, rows: Iterable[Sequence[object]], delimiter: str = ",") -> Path:
    """A table; the header is given as a text, with commas whatever the delimiter is."""
    lines = [header.replace(",", delimiter), *(delimiter.join(map(str, row)) for row in rows)]
    return write_lines(path, lines)


def pydicom_file(name: str) -> Path:
    """A real DICOM file that lies in pydicom's own folder; nothing is downloaded."""
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str), f"pydicom has no {name}"
    return Path(path)


def save_dicom(path: Path, seed: int, **elements: object) -> Path:
    """A small 8-bit DICOM image of noise; elements are given by keyword, and replace what would be there."""
    pixels = noise(seed)[:, :, 0]
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PixelRepresentation, dataset.PhotometricInterpretation = 1, 0, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", f"1.2.3.{seed}"
    dataset.PixelData = pixels.tobytes()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def save_arrays(path: Path, **arrays: NDArray[np.generic]) -> Path:
    """An `.npz` file, compressed as MedMNIST's are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)
    return path
