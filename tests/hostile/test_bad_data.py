"""Bad images, tables, labels and splits one by one, each with the sentence that the user reads.

The numbers are those of the project's list of bad inputs; the rest of it is in `test_bad_inputs.py`.
"""

from __future__ import annotations

import os
import shutil
import struct
import threading
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.data import get_testdata_file

from engine.data import dicom_child
from engine.data.manifest import Item, Skipped
from engine.data.options import DataOptions
from engine.data.pixels import CacheOptions, pixel_cache
from engine.data.read import read_dataset
from engine.errors import DataError, SimtuiError
from engine.files import open_file
from tests.engine.data.making import make_folder_dataset, make_isic_dataset, noise, save_image, write_lines

SIZE = 14  # pixels are kept at 16
LIMIT_S = 20.0


@dataclass(frozen=True)
class Seen:
    """What became of a dataset once all of its images were decoded."""

    items: tuple[Item, ...]
    pixels: dict[str, NDArray[np.uint8]]
    skipped: tuple[Skipped, ...]
    warnings: tuple[str, ...]


def read(root: Path, **options: Any) -> Seen:
    """Reads a dataset and decodes its images, as a study does."""
    chosen = DataOptions(**options)
    manifest = read_dataset(root, chosen)
    cached = CacheOptions(decoding=manifest.decoding, max_skipped=chosen.max_skipped)
    cache = pixel_cache(manifest.root, manifest.items, SIZE, root.with_name("pixels"), options=cached)
    rows = cache.pixels[np.arange(len(cache.items))]
    pixels = {item.path: image for item, image in zip(cache.items, rows, strict=True)}
    return Seen(cache.items, pixels, (*manifest.skipped, *cache.skipped), (*manifest.warnings, *cache.warnings))


def folder(root: Path, n: int = 20) -> Path:
    """A sound dataset of two classes."""
    return make_folder_dataset(root / "data", {"a": n, "b": n})


def put(path: Path, content: bytes | Image.Image, **options: Any) -> Path:
    """Writes a file; an image in the format that the suffix names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content.save(path, **options)
    return path


def bytes_of(image: Image.Image, kind: str, **options: Any) -> bytes:
    """An encoded image."""
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def table(root: Path, lines: Sequence[str], n: int = 12) -> Path:
    """Images `i0.png` and so on, beside `labels.csv` of these lines."""
    for i in range(n):
        save_image(root / "data" / f"i{i}.png", i)
    return write_lines(root / "data" / "labels.csv", lines).parent


def lines(n: int = 12, **changed: str) -> list[str]:
    """A sound table `path,label`, but for the lines that are given, as `line_7="…"`."""
    sound = ["path,label", *(f"i{i}.png,{'ab'[i % 2]}" for i in range(n))]
    return [changed.get(f"line_{number}", line) for number, line in enumerate(sound, start=1)]


def refused(root: Path, where: object, sentence: str, **options: Any) -> SimtuiError:
    """The dataset is refused in one message: it names the place, says the sentence word for word, and what mends it."""
    with pytest.raises(DataError) as caught:
        read(root, **options)
    assert caught.value.exit_code == 2
    assert str(where) in caught.value.where
    assert f"{caught.value.where}: {caught.value.problem}".find(sentence) >= 0, str(caught.value)
    assert caught.value.fix
    return caught.value


def skipped(root: Path, path: str, sentence: str, **options: Any) -> None:
    """One image of 41 is left out, counted and listed; one of 11 stops the reading, unless the user allows it."""
    one = Skipped(path, sentence)
    seen = read(root, **options)
    assert seen.skipped == (one,)
    assert len(seen.items) == 40 and path not in {item.path for item in seen.items}
    for name in ("a", "b"):
        for sound in sorted((root / name).glob("[0-9]*.png"))[5:]:
            sound.unlink()
    error = refused(root, root, f"1 of 11 images cannot be used (limit 5%): {path}: {sentence}", **options)
    assert "data.max_skipped" in error.fix
    assert read(root, max_skipped=0.2, **options).skipped == (one,)


def warned(root: Path, sentence: str, **options: Any) -> Seen:
    """The dataset is read whole, and says so."""
    seen = read(root, **options)
    assert not seen.skipped
    assert sentence in seen.warnings, seen.warnings
    return seen


def dicom_file(name: str) -> Path:
    """A file that comes with pydicom."""
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str), name
    return Path(path)


# Images


def test_row_01_image_that_is_cut_short(tmp_path: Path) -> None:
    whole = bytes_of(Image.fromarray(noise(99, 64, 48)), "JPEG")
    root = folder(tmp_path)
    put(root / "a" / "bad.jpg", whole[: len(whole) // 2])
    skipped(root, "a/bad.jpg", "image is cut short")


def test_row_02_empty_file(tmp_path: Path) -> None:
    root = folder(tmp_path)
    put(root / "a" / "bad.jpg", b"")
    skipped(root, "a/bad.jpg", "file is empty")


def test_row_03_text_named_as_an_image(tmp_path: Path) -> None:
    root = folder(tmp_path)
    put(root / "a" / "bad.jpg", b"<html>404 Not Found</html>")
    skipped(root, "a/bad.jpg", "not an image")


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def test_row_04_image_that_would_fill_the_memory(tmp_path: Path) -> None:
    root = folder(tmp_path)
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    chunks = _chunk(b"IHDR", header), _chunk(b"IDAT", zlib.compress(bytes(1000))), _chunk(b"IEND", b"")
    put(root / "a" / "bad.png", b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    skipped(root, "a/bad.png", "2500 megapixels; limit 100")


def test_row_05_image_of_120_megapixels(tmp_path: Path) -> None:
    root = folder(tmp_path)
    put(root / "a" / "bad.png", Image.new("1", (12_000, 10_000)))
    skipped(root, "a/bad.png", "120 megapixels; limit 100")


def test_row_06_strip(tmp_path: Path) -> None:
    root = folder(tmp_path)
    put(root / "a" / "bad.png", Image.new("L", (1, 20_000)))
    skipped(root, "a/bad.png", "aspect ratio 20000; limit 50")


def test_row_07_cmyk(tmp_path: Path) -> None:
    root = folder(tmp_path)
    red = Image.new("CMYK", (20, 20), (0, 255, 255, 0))
    for name in ("x.jpg", "y.jpg"):
        put(root / "a" / name, red, quality=95 if name == "x.jpg" else 90)
    pixels = warned(root, "2 images: CMYK, converted to RGB").pixels["a/x.jpg"]
    assert np.abs(pixels.astype(int) - (255, 0, 0)).max() < 10


def test_row_08_16_bit_image_without_a_window(tmp_path: Path) -> None:
    root = folder(tmp_path)
    deep = np.repeat(np.array([[1000, 3000]], np.uint16), 8, axis=1).repeat(16, axis=0)
    put(root / "a" / "deep.png", Image.fromarray(deep))
    sentence = '16-bit image; set data.window = [low, high] or "auto"'
    refused(root, root / "a" / "deep.png", sentence)
    assert np.unique(read(root, window=(1000, 5000)).pixels["a/deep.png"][:, [0, -1]]).tolist() == [0, 128]
    assert np.unique(read(root, window="auto").pixels["a/deep.png"][:, [0, -1]]).tolist() == [0, 255]


def test_row_09_alpha(tmp_path: Path) -> None:
    root = folder(tmp_path)
    put(root / "a" / "half.png", Image.new("RGBA", (20, 20), (200, 100, 0, 128)))
    pixels = warned(root, "1 images: alpha, composited on black").pixels["a/half.png"]
    assert pixels[8, 8].tolist() == [100, 50, 0]


@pytest.mark.parametrize("name", ["six.tif", "six.webp", "six.png"])
def test_row_10_several_frames(tmp_path: Path, name: str) -> None:
    root = folder(tmp_path)
    frames = [Image.new("RGB", (20, 20), (40 * i, 0, 0)) for i in range(6)]
    lossless = {"lossless": True} if name.endswith("webp") else {}
    put(root / "a" / name, frames[0], save_all=True, append_images=frames[1:], **lossless)
    refused(root, root / "a" / name, "6 frames; set data.frame = 0")
    assert read(root, frame=2).pixels[f"a/{name}"][8, 8].tolist() == [80, 0, 0]


def test_row_11_exif_rotation(tmp_path: Path) -> None:
    root = folder(tmp_path)
    pixels = np.zeros((20, 20, 3), np.uint8)
    pixels[:10] = 255  # the upper half; a quarter turn clockwise makes it the right one
    exif = Image.Exif()
    exif[0x0112] = 6
    put(root / "a" / "turned.jpg", Image.fromarray(pixels), exif=exif, quality=95)
    seen = read(root).pixels["a/turned.jpg"]
    assert seen[:, :6].max() < 30 and seen[:, 10:].min() > 225


def test_row_12_pixels_that_are_not_numbers(tmp_path: Path) -> None:
    root = folder(tmp_path)
    values = np.ones((20, 20), np.float32)
    values[3, :11], values[9, 9] = np.nan, np.inf
    put(root / "a" / "bad.tif", Image.fromarray(values))
    skipped(root, "a/bad.tif", "12 pixels are not numbers", window="auto")


def test_row_13_format_other_than_the_name(tmp_path: Path) -> None:
    root = folder(tmp_path)
    put(root / "a" / "x.jpg", bytes_of(Image.fromarray(noise(99)), "PNG"))
    put(root / "a" / "y.jpg", bytes_of(Image.fromarray(noise(98)), "PNG"))
    assert "a/x.jpg" in warned(root, "2 images: PNG by content, JPEG by name").pixels


def _never_blocks(work: Any) -> None:
    """Runs it in a thread, so that waiting for the writer of a FIFO is a failure and not a hang."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(LIMIT_S)
    assert not thread.is_alive()
    for failure in failures:
        raise failure


def test_row_14_fifo(tmp_path: Path) -> None:
    root = folder(tmp_path)
    os.mkfifo(root / "a" / "bad.png")
    _never_blocks(lambda: skipped(root, "a/bad.png", "not a regular file"))


def test_row_14_device(tmp_path: Path) -> None:
    root = folder(tmp_path)
    (root / "a" / "bad.png").symlink_to("/dev/zero")
    _never_blocks(lambda: refused(root, root / "a" / "bad.png", "link leads out of the dataset folder"))
    _never_blocks(lambda: skipped(root, "a/bad.png", "not a regular file", follow_links=True))


def test_row_14_fifo_in_place_of_a_table(tmp_path: Path) -> None:
    root = table(tmp_path, lines())
    (root / "labels.csv").unlink()
    os.mkfifo(root / "labels.csv")
    _never_blocks(lambda: refused(root, root / "labels.csv", "not a regular file"))


def test_row_15_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folder(tmp_path)
    path = put(root / "a" / "bad.png", Image.fromarray(noise(99)))
    path.chmod(0)
    if os.access(path, os.R_OK):  # as root, whom permissions do not hold back

        def refuse(other: Path) -> Any:
            if other == path:
                raise PermissionError(13, "Permission denied", str(other))
            return open_file(other)

        monkeypatch.setattr("engine.data.images.open_file", refuse)
    skipped(root, "a/bad.png", "permission denied")


def test_row_16_dicom_without_pixels(tmp_path: Path) -> None:
    root = folder(tmp_path)
    shutil.copy(dicom_file("rtplan.dcm"), root / "a" / "bad.dcm")
    skipped(root, "a/bad.dcm", "DICOM without pixel data")


@pytest.mark.parametrize(("name", "n"), [("SC_rgb_rle_2frame.dcm", 2), ("examples_ybr_color.dcm", 30)])
def test_row_16_dicom_with_several_frames(tmp_path: Path, name: str, n: int) -> None:
    root = folder(tmp_path)
    shutil.copy(dicom_file(name), root / "a" / "film.dcm")
    refused(root, root / "a" / "film.dcm", f"{n} frames; set data.frame = 0")
    assert len(read(root, frame=1).items) == 41


def test_row_16_dicom_whose_zero_is_white(tmp_path: Path) -> None:
    root = folder(tmp_path)
    dataset = pydicom.dcmread(dicom_file("MR_small.dcm"))
    shown: dict[str, NDArray[np.uint8]] = {}
    for kind in ("MONOCHROME1", "MONOCHROME2"):
        dataset.PhotometricInterpretation = kind
        dataset.save_as(root / "a" / f"{kind}.dcm")
        shown = read(root, window=(0, 4000)).pixels
    first, second = (shown[f"a/MONOCHROME{number}.dcm"].astype(int) for number in (1, 2))
    assert len(np.unique(second)) > 50
    assert np.abs(first - (255 - second)).max() <= 1  # resized after the inversion


@pytest.mark.parametrize(("at", "value", "code"), [(6, 127, -6), (10, 0, -11)])
def test_row_16_dicom_that_crashes_its_decoder(tmp_path: Path, at: int, value: int, code: int) -> None:
    root = folder(tmp_path)
    content = bytearray(dicom_file("JPEGLSNearLossless_08.dcm").read_bytes())
    content[content.index(b"\xff\xd8\xff") + at] = value  # its depth, its width
    put(root / "a" / "bad.dcm", bytes(content))
    shutil.copy(dicom_file("MR_small_jpeg_ls_lossless.dcm"), root / "b" / "sound.dcm")
    shutil.copy(dicom_file("SC_rgb_jpeg_gdcm.dcm"), root / "b" / "good.dcm")
    seen = read(root, window="auto")
    sentence = f"DICOM that cannot be decoded (crashes its decoder (exit code {code}))"
    assert seen.skipped == (Skipped("a/bad.dcm", sentence),)
    assert {"b/sound.dcm", "b/good.dcm"} <= set(seen.pixels)


def test_row_16_dicom_that_keeps_its_decoder_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folder(tmp_path)
    shutil.copy(dicom_file("JPEG2000.dcm"), root / "a" / "bad.dcm")
    with monkeypatch.context() as patch:
        patch.setattr(dicom_child, "_LIMIT_S", 0.0)
        sentence = "DICOM that cannot be decoded (keeps its decoder busy for more than 0 s)"
        assert read(root, window="auto").skipped == (Skipped("a/bad.dcm", sentence),)
    save_image(root / "b" / "another.png", 99)  # so that the pixels are not those that were kept
    assert "a/bad.dcm" in read(root, window="auto").pixels


def test_row_16_dicom_that_declares_more_than_there_is(tmp_path: Path) -> None:
    root = folder(tmp_path)
    content = dicom_file("JPEG2000.dcm").read_bytes()
    at = content.index(b"\xff\x4f\xff\x51") + 8
    put(root / "a" / "bad.dcm", content[:at] + struct.pack(">II", 60_000, 60_000) + content[at + 8 :])
    (one,) = read(root, window="auto").skipped
    assert one.path == "a/bad.dcm" and one.problem.startswith("DICOM that cannot be decoded (")


# Names and paths


@pytest.mark.parametrize("cell", ["../../etc/x.png", "/etc/passwd", "sub/../../x.png"])
def test_row_24_path_that_leaves_the_folder(tmp_path: Path, cell: str) -> None:
    save_image(tmp_path / "x.png", 99)
    root = table(tmp_path, lines(line_7=f"{cell},a"))
    refused(root, root / "labels.csv", "line 7: path leaves the dataset folder")


def test_row_24_path_in_other_tables_that_leaves_the_folder(tmp_path: Path) -> None:
    root = make_isic_dataset(tmp_path / "isic", {"Training": ["MEL", "NV", "BCC"] * 6})
    path = next(root.rglob("*Training_GroundTruth.csv"))
    path.write_text(path.read_text().replace("ISIC_0000005", "../../x"))
    refused(root, path, "line 7: path leaves the dataset folder")
    root = table(tmp_path, lines())
    with pytest.raises(DataError, match="path leaves the dataset folder") as caught:
        read_dataset(root, DataOptions(table="../labels.csv"))
    assert caught.value.fix


def test_row_24_path_in_an_imagenet_label_file_that_leaves_the_folder(tmp_path: Path) -> None:
    root = _imagenet(tmp_path / "data")
    names = [path.name for path in sorted(root.glob("*.png"))]
    named = [f"{name} {i % 2}" for i, name in enumerate(names)]
    write_lines(root / "val.txt", [*named[:6], f"../../etc/{names[6]} 0", *named[7:]])
    refused(root, root / "val.txt", "line 7: path leaves the dataset folder")


@pytest.mark.parametrize("what", ["file", "folder", "table"])
def test_row_25_link_out_of_the_folder(tmp_path: Path, what: str) -> None:
    sentence = "link leads out of the dataset folder"
    outside = tmp_path / "outside"
    if what == "table":
        root = table(tmp_path, lines())
        outside.mkdir()
        link = root / "labels.csv"
        link.rename(outside / "labels.csv")
        link.symlink_to(outside / "labels.csv")
    else:
        root = folder(tmp_path)
        path = save_image(outside / "x.png", 99)
        link = root / "a" / ("x.png" if what == "file" else "more")
        link.symlink_to(path if what == "file" else outside)
    assert "data.follow_links" in refused(root, link, sentence).fix
    assert len(read(root, follow_links=True).items) == (12 if what == "table" else 41)


def test_row_25_link_within_the_folder(tmp_path: Path) -> None:
    root = folder(tmp_path)
    (root / "b" / "x.png").symlink_to(save_image(root / "spare" / "x.png", 99))
    save_image(root / "spare" / "y.png", 98)
    assert {"b/x.png", "spare/x.png"} <= {item.path for item in read(root).items}


@pytest.mark.parametrize("follow_links", [False, True])
def test_row_26_loop_of_links(tmp_path: Path, follow_links: bool) -> None:
    root = folder(tmp_path)
    (root / "a" / "again").symlink_to(root / "a")
    (root / "b" / "up").symlink_to(root / "b" / "..", target_is_directory=True)
    (root / "b" / "self").symlink_to("self")
    paths = [item.path for item in read(root, follow_links=follow_links).items]
    assert len({os.path.realpath(root / path) for path in paths}) == 40 and len(paths) <= 60


# Tables, labels, splits


def test_row_27_missing_column(tmp_path: Path) -> None:
    sentence = 'no column "label"; found id, path, lable; did you mean "lable"?'
    rows = [f"{i},i{i}.png,{'ab'[i % 2]}" for i in range(12)]
    root = table(tmp_path, ["id,path,lable", *rows])
    refused(root, root / "labels.csv", sentence, label="label")
    # Too many values for a guess.
    root = table(tmp_path, ["id,path,lable", *(f"{i},i{i}.png,c{i}" for i in range(12))])
    assert "data.label" in refused(root, root / "labels.csv", sentence).fix


def test_row_28_image_on_two_lines(tmp_path: Path) -> None:
    save_image(tmp_path / "data" / "p12.png", 99)
    root = table(tmp_path, lines(line_3="p12,a", line_12="p12,a"))
    refused(root, root / "labels.csv", 'id "p12" on lines 3 and 12')
    root = make_isic_dataset(tmp_path / "isic", {"Training": ["MEL", "NV", "BCC"] * 6})
    path = next(root.rglob("*Training_GroundTruth.csv"))
    path.write_text(path.read_text().replace("ISIC_0000005", "ISIC_0000001"))
    refused(root, path, 'id "ISIC_0000001" on lines 3 and 7')


@pytest.mark.parametrize("cell", ["", " ", "NaN", "nan"])
def test_row_29_empty_label(tmp_path: Path, cell: str) -> None:
    root = table(tmp_path, lines(line_9=f"i7.png,{cell}"))
    error = refused(root, root / "labels.csv", "line 9: label is empty")
    assert error.fix.startswith("give the image one of a b,")
    root = table(tmp_path, ["path,a,b", *(f"i{i}.png,{i % 2},{cell if i == 7 else 1 - i % 2}" for i in range(12))])
    refused(root, root / "labels.csv", "line 9: label is empty", task="single")


def _arrays(n: int = 20) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for number, split in enumerate(("train", "val", "test")):
        made[f"{split}_images"] = np.stack([noise(100 * number + i, 8, 8) for i in range(n)])
        made[f"{split}_labels"] = np.arange(n, dtype=np.int64)[:, None] % 2
    return made


def _imagenet(root: Path, n: int = 12) -> Path:
    for i in range(1, n + 1):
        save_image(root / f"ILSVRC2012_val_{i:08d}.png", i)
    return root


@pytest.mark.parametrize("label", [2, 255, -1, 2**62])
def test_row_30_label_of_an_array_out_of_range(tmp_path: Path, label: int) -> None:
    made = _arrays()
    made["test_labels"][3] = label
    path = tmp_path / "pneumoniamnist.npz"
    np.savez(path, **made)
    refused(path, f"{path} test_labels row 3", f"label {label} is out of range; need 0 to 1")


def test_row_30_label_of_an_array_with_more_classes_than_images(tmp_path: Path) -> None:
    made = _arrays()
    made["train_labels"][3] = 2**62
    np.savez(tmp_path / "any.npz", **made)
    refused(tmp_path / "any.npz", "train_labels row 3", f"label {2**62} is out of range; need 0 to 59")


@pytest.mark.parametrize(
    ("name", "line", "number", "need"),
    [
        ("ILSVRC2012_validation_ground_truth.txt", "{}", "1001", "1 to 1000"),
        ("ILSVRC2012_validation_ground_truth.txt", "{}", "0", "1 to 1000"),
        ("ILSVRC2012_validation_ground_truth.txt", "{}", "9" * 5000, "1 to 1000"),
        ("val.txt", "ILSVRC2012_val_00000007.png {}", "1000", "0 to 999"),
    ],
    ids=["above", "zero", "5000 digits", "val.txt"],
)
def test_row_30_number_of_a_class_out_of_range(tmp_path: Path, name: str, line: str, number: str, need: str) -> None:
    root = _imagenet(tmp_path / "data")
    sound = [line.format(1 + i % 2).replace("00007", f"{i + 1:05d}") for i in range(12)]
    write_lines(root / name, [*sound[:6], line.format(number), *sound[7:]])
    refused(root, f"{root / name} line 7", f'label "{number}" is out of range; need {need}')


@pytest.mark.parametrize("grade", ["-1", "x", "1.5"])
def test_row_30_grade_out_of_range(tmp_path: Path, grade: str) -> None:
    sound = [f"i{i}.png,{i % 3}" for i in range(12)]
    root = table(tmp_path, ["path,level", *sound[:5], f"i5.png,{grade}", *sound[6:]])
    refused(root, root / "labels.csv", f'line 7: grade "{grade}" is out of range; need a number from 0', task="ordinal")


def test_row_31_one_class_only(tmp_path: Path) -> None:
    refused(make_folder_dataset(tmp_path / "data", {"a": 9}), "data", 'one class only ("a")')
    root = table(tmp_path / "csv", ["path,label", *(f"i{i}.png,nevus" for i in range(12))])
    refused(root, "data", 'one class only ("nevus")')
    made = _arrays()
    np.savez(tmp_path / "any.npz", **{name: values * ("images" in name) for name, values in made.items()})
    refused(tmp_path / "any.npz", "any.npz", 'one class only ("0")')


def test_row_32_class_with_one_image(tmp_path: Path) -> None:
    root = make_folder_dataset(tmp_path / "data", {"a": 9, "b": 9, "rare": 1})
    refused(root, root, '"rare" has 1 image; a split needs 2')


def test_row_33_empty_split(tmp_path: Path) -> None:
    root = make_folder_dataset(tmp_path / "data" / "train", {"a": 9, "b": 9}).parent
    for name in ("a", "b"):
        (root / "test" / name).mkdir(parents=True)
    refused(root, root / "test", "no images for test")
    root = make_folder_dataset(tmp_path / "few", {"a": 2, "b": 2})
    refused(root, root, "val has no images")


def _split_table(root: Path, n: int, name: str = "patient_id") -> Path:
    """40 images of 20 patients; the first `n` patients have one in train and one in test."""
    rows = []
    for i in range(40):
        split = ("train" if i % 2 else "test") if i // 2 < n else ("train", "val", "test", "train")[i // 2 % 4]
        rows.append(f"i{i}.png,{'ab'[i // 8 % 2]},{split},P{i // 2}")
    return table(root, [f"path,label,split,{name}", *rows], n=40)


def test_row_34_patient_in_two_splits(tmp_path: Path) -> None:
    root = _split_table(tmp_path, 3)
    refused(root, root, "3 patients are in train and test")
    assert read(_split_table(tmp_path / "sound", 0)).items


def test_row_34_lesion_in_two_splits(tmp_path: Path) -> None:
    root = _split_table(tmp_path, 1, "lesion_id")
    refused(root, root, '1 lesion is in train and test (first: "P0": "i1.png" and "i0.png")')


def test_row_34_identical_image_in_two_splits(tmp_path: Path) -> None:
    root = make_folder_dataset(tmp_path / "data" / "train", {"a": 9, "b": 9}).parent
    make_folder_dataset(root / "test", {"a": 9, "b": 9}, first_seed=50)
    for i in range(3):
        save_image(root / "test" / "a" / f"again{i}.png", i)
    refused(root, root, "3 identical images are in train and test")


def test_row_35_ragged_row(tmp_path: Path) -> None:
    rows = [f"i{i}.png,{'ab'[i % 2]},m" for i in range(12)]
    root = table(tmp_path, ["path,label,sex", *rows[:3], f"{rows[3]},1", *rows[4:]])
    refused(root, root / "labels.csv", "line 5: 4 fields, expected 3")


def test_row_35_wrong_encoding(tmp_path: Path) -> None:
    root = table(tmp_path, lines())
    text = (root / "labels.csv").read_text()
    (root / "labels.csv").write_bytes(text.replace("i3.png,b", "i3.png,nävus").encode("latin-1"))
    refused(root, root / "labels.csv", "line 5: not UTF-8")
    (root / "labels.csv").write_bytes(text.encode("utf-16"))
    refused(root, root / "labels.csv", "line 1: not UTF-8")


def test_row_36_missing_image(tmp_path: Path) -> None:
    root = table(tmp_path, lines(40), n=40)
    (root / "i6.png").unlink()
    seen = read(root)
    assert seen.skipped == (Skipped("i6.png", "labels.csv line 8: no such image"),)
    assert len(seen.items) == 39
    for i in (7, 8):
        (root / f"i{i}.png").unlink()
    error = refused(root, root, "3 of 40 images cannot be used (limit 5%): i6.png: labels.csv line 8: no such image")
    assert "data.max_skipped" in error.fix
    assert len(read(root, max_skipped=0.1).skipped) == 3


def test_row_37_no_images(tmp_path: Path) -> None:
    (tmp_path / "data" / "a").mkdir(parents=True)
    (tmp_path / "data" / "a" / "notes.txt").write_text("x")
    refused(tmp_path / "data", tmp_path / "data", f"{tmp_path / 'data'}: no images under it (looked for ")
    root = write_lines(tmp_path / "csv" / "labels.csv", lines()).parent
    refused(root, root, f"{root}: no images under it (looked for ")
    refused(tmp_path / "nowhere", tmp_path / "nowhere", "no such folder")


@pytest.mark.parametrize(
    ("cells", "sentence"),
    [("1,1", "line 5: 2 ones (a b); a one-hot row has exactly one"), ("0,0", "line 5: no one; a one-hot row has")],
)
def test_row_38_row_that_is_not_one_hot(tmp_path: Path, cells: str, sentence: str) -> None:
    rows = [f"i{i}.png,{i % 2},{1 - i % 2}" for i in range(12)]
    root = table(tmp_path, ["path,a,b", *rows[:3], f"i3.png,{cells}", *rows[4:]])
    refused(root, root / "labels.csv", sentence)


@pytest.mark.parametrize("name", ["train_images", "train_labels", "test_images", "test_labels"])
def test_row_39_array_of_pickled_objects(tmp_path: Path, name: str) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[Path]]:
            return (Path.touch, (tmp_path / "owned",))

    path = tmp_path / "any.npz"
    made = _arrays()
    made[name] = np.array([Evil() for _ in made[name]], dtype=object)
    np.savez(path, **made)
    refused(path, path, f"{name} holds pickled objects, which can run code; refused")
    assert not (tmp_path / "owned").exists()
    np.load(path, allow_pickle=True)[name]  # so that it is the refusal that kept it from running
    assert (tmp_path / "owned").exists()
