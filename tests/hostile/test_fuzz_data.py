"""Datasets damaged at random: an answer or one clear error, never a traceback, a crash, a hang or a full memory.

Every case follows from its seed alone. The cases run in a process of their own, because decoders written in C can take
the whole process with them; `damaged_image(17, folder)` and its like repeat one case in this process.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import re
import resource
import time
import traceback
import zipfile
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from io import BytesIO
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.data import get_testdata_file

from engine.data.images import Decoded, decode_file, decode_square, quiet_decoders
from engine.data.intensity import Decoding
from engine.data.options import DataOptions
from engine.data.read import read_dataset
from engine.data.sources import source_of
from engine.errors import SimtuiError
from tests.engine.data.making import noise
from tests.hostile.test_fuzz import mutated
from tests.sweeps import n_of

N_PARTS = n_of(1, 4)
N_IMAGES, N_TABLES, N_NPZ = n_of(80, 4_000) // N_PARTS, n_of(60, 1_200), n_of(60, 800)
LIMIT_S, LIMIT_START_S = 20.0, 120.0
LIMIT_BYTES, LIMIT_ADDRESSES = 2_000_000_000, 8_000_000_000

Case = Callable[[int, Path], None]


def _run(case: Case, seeds: range, folder: Path, at: Any, report: Connection) -> None:
    """In the process of its own: sends how many cases were answered, or what is wrong with which seed."""
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT_ADDRESSES, LIMIT_ADDRESSES))
    n_answered = 0
    for seed in seeds:
        at.value = seed
        try:
            case(seed, folder)
            n_answered += 1
        except SimtuiError as error:
            if not (error.problem and error.fix):
                report.send(f"seed {seed}: no problem or no fix: {error}")
                return
        except BaseException:
            report.send(f"seed {seed}: {traceback.format_exc()}")
            return
        n_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if n_bytes > LIMIT_BYTES:
            report.send(f"seed {seed}: took {n_bytes / 1e9:.1f} GB")
            return
    report.send(n_answered)


def sweep(case: Case, seeds: range, folder: Path) -> int:
    """Runs the cases; fails at the first that is neither answered nor refused. Returns how many were answered."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    at = context.Value("q", -1)
    process = context.Process(target=_run, args=(case, seeds, folder, at, sender))
    process.start()
    sender.close()
    seed, since_s = -1, time.monotonic()
    while not receiver.poll(0.1):
        if at.value != seed:
            seed, since_s = at.value, time.monotonic()
        elif time.monotonic() - since_s > (LIMIT_S if seed >= 0 else LIMIT_START_S):
            process.kill()
            process.join()
            pytest.fail(f"{case.__name__}, seed {seed}: no answer")
    try:
        said: int | str = receiver.recv()
    except EOFError:
        process.join()
        pytest.fail(f"{case.__name__}, seed {at.value}: the process died with {process.exitcode}")
    process.join()
    if isinstance(said, str):
        pytest.fail(f"{case.__name__}, {said}")
    print(f"{len(seeds)} cases of {case.__name__}: {said} answered, {len(seeds) - said} refused")
    return said


def _raises(seed: int, folder: Path) -> None:
    if seed == 3:
        raise KeyError(folder)


def _crashes(seed: int, folder: Path) -> None:
    if seed == 3:
        os.abort()


def _fills_the_memory(seed: int, folder: Path) -> None:
    if seed == 3:
        np.ones(LIMIT_BYTES, np.uint8)


@pytest.mark.parametrize("case", [_raises, _crashes, _fills_the_memory])
def test_a_bad_end_is_told_with_its_seed(tmp_path: Path, case: Case) -> None:
    with pytest.raises(pytest.fail.Exception, match=rf"{case.__name__}, seed 3: "):
        sweep(case, range(5), tmp_path)


# Images

DECODINGS = (
    Decoding(), Decoding("auto"), Decoding((0.0, 255.0)), Decoding((-1000.0, 3000.0)), Decoding(None, 0),
    Decoding("auto", 0), Decoding("auto", 1),
)  # fmt: skip
SIDE = 24
DICOM_NAMES = (
    "CT_small.dcm", "ExplVR_BigEnd.dcm", "GDCMJ2K_TextGBR.dcm", "JPEG2000.dcm", "JPEGLSNearLossless_08.dcm",
    "JPEGLSNearLossless_16.dcm", "MR_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm",
    "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "SC_rgb_dcmtk_+eb+cr.dcm",
    "SC_rgb_dcmtk_+eb+cy+s4.dcm", "SC_rgb_gdcm_KY.dcm", "SC_rgb_jls_lossy_line.dcm", "SC_rgb_jls_lossy_sample.dcm",
    "SC_rgb_jpeg_gdcm.dcm", "SC_rgb_jpeg_lossy_gdcm.dcm", "SC_rgb_rle.dcm", "SC_rgb_rle_2frame.dcm",
    "SC_rgb_small_odd.dcm", "SC_rgb_small_odd_jpeg.dcm", "SC_ybr_full_422_uncompressed.dcm", "liver_1frame.dcm",
    "rtdose.dcm", "rtdose_rle_1frame.dcm",
)  # fmt: skip
_SUFFIXES = (".png", ".jpg", ".tif", ".bmp", ".webp", ".gif", ".dcm")
_CODESTREAM = re.compile(rb"\xff\xd8\xff|\xff\x4f\xff\x51|\xe0\x7f\x10\x00|\x7f\xe0\x00\x10|\x28\x00\x02\x00")


def _saved(image: Image.Image, kind: str, *others: Image.Image, **options: Any) -> bytes:
    file = BytesIO()
    if others:
        options |= {"save_all": True, "append_images": [other.copy() for other in others]}
    image.copy().save(file, kind, **options)  # copies, because Pillow leaves settings of an encoder in what it saves
    return file.getvalue()


def _png_of_16_bit_colour() -> bytes:
    """Pillow writes none: 6 × 4 pixels of it by hand."""
    rows = b"".join(b"\0" + bytes(range(36)) for _ in range(4))
    chunks = [(b"IHDR", b"\0\0\0\6\0\0\0\4\x10\2\0\0\0"), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, content) for name, content in chunks)


def _chunk(name: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(name + content).to_bytes(4, "big")
    return len(content).to_bytes(4, "big") + name + content + checksum


@cache
def images() -> dict[str, dict[str, bytes]]:
    """Sound images: suffix -> what it is -> its bytes."""
    rgb = Image.fromarray(noise(1, 40, 30))
    rgba = rgb.copy()
    rgba.putalpha(rgb.convert("L"))
    grey, frames = rgb.convert("L"), [Image.fromarray(noise(seed, 40, 30)) for seed in (2, 3)]
    deep = Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50)
    exact = Image.fromarray(np.linspace(-3, 900, 1200, dtype=np.float32).reshape(30, 40))
    rotated = Image.Exif()
    rotated[0x0112] = 6
    tiff = {
        compression: _saved(rgb, "TIFF", compression=compression)
        for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
    }
    dicoms = {}
    for name in DICOM_NAMES:
        path = get_testdata_file(name, download=False)
        assert isinstance(path, str), name
        dicoms[name] = Path(path).read_bytes()
    return {
        ".png": {
            "RGB": _saved(rgb, "PNG"), "grey": _saved(grey, "PNG"), "16-bit": _saved(deep, "PNG"),
            "16-bit colour": _png_of_16_bit_colour(), "palette": _saved(rgb.quantize(16), "PNG"),
            "see-through palette": _saved(rgb.quantize(16), "PNG", transparency=3), "alpha": _saved(rgba, "PNG"),
            "grey and alpha": _saved(rgba.convert("LA"), "PNG"), "bits": _saved(grey.convert("1"), "PNG"),
            "animated": _saved(rgb, "PNG", *frames),
        },
        ".jpg": {
            "RGB": _saved(rgb, "JPEG"), "progressive": _saved(rgb, "JPEG", progressive=True),
            "grey": _saved(grey, "JPEG"), "CMYK": _saved(rgb.convert("CMYK"), "JPEG"),
            "EXIF": _saved(rgb, "JPEG", exif=rotated), "restarts": _saved(rgb, "JPEG", restart_marker_blocks=2),
            "MPO": _saved(rgb, "MPO", *frames),
        },
        ".tif": {
            "RGB": _saved(rgb, "TIFF"), "16-bit": _saved(deep, "TIFF"), "float": _saved(exact, "TIFF"),
            "float LZW": _saved(exact, "TIFF", compression="tiff_lzw"), "CMYK": _saved(rgb.convert("CMYK"), "TIFF"),
            "fax": _saved(grey.convert("1"), "TIFF", compression="group4"), "alpha": _saved(rgba, "TIFF"),
            "multi-page": _saved(rgb, "TIFF", *frames), **tiff,
        },
        ".bmp": {
            "RGB": _saved(rgb, "BMP"), "palette": _saved(rgb.quantize(16), "BMP"), "alpha": _saved(rgba, "BMP"),
            "bits": _saved(grey.convert("1"), "BMP"),
        },
        ".webp": {
            "lossy": _saved(rgb, "WEBP"), "lossless": _saved(rgb, "WEBP", lossless=True),
            "alpha": _saved(rgba, "WEBP"), "animated": _saved(rgb, "WEBP", *frames),
        },
        ".gif": {"RGB": _saved(rgb, "GIF"), "animated": _saved(rgb, "GIF", *frames)},
        ".dcm": dicoms,
    }  # fmt: skip


def _damaged(content: bytes, drawn: random.Random) -> bytes:
    """Damage anywhere, at the head of the file, or at the head of the compressed pixels in it."""
    start, end = 0, len(content)
    match drawn.randrange(3):
        case 0:
            end = 256
        case 1:
            start = drawn.choice([found.start() for found in _CODESTREAM.finditer(content)] or [0])
            end = start + 64
    changed = content[:start] + mutated(content[start:end], drawn) + content[end:]
    return _with_checksums(changed) if content.startswith(b"\x89PNG") and drawn.random() < 0.7 else changed


def _with_checksums(png: bytes) -> bytes:
    """The same chunks with checksums that fit, so that what is behind the checksums is reached."""
    at, chunks = 8, [png[:8]]
    while at + 8 <= len(png):
        length = int.from_bytes(png[at : at + 4], "big")
        body = png[at + 4 : at + 8 + length]
        chunks += [png[at : at + 4], body, zlib.crc32(body).to_bytes(4, "big")]
        at += 12 + length
    return b"".join(chunks)


def damaged_image(seed: int, folder: Path) -> None:
    """Decodes an image with one to four changes, whole or to a square, sometimes under a wrong name."""
    drawn = random.Random(f"image {seed}")
    suffix = drawn.choice((*images(), ".dcm"))
    content = _damaged(images()[suffix][drawn.choice(list(images()[suffix]))], drawn)
    path = Path(f"image{suffix if drawn.random() < 0.9 else drawn.choice(_SUFFIXES)}")
    decoding = drawn.choice(DECODINGS)
    with quiet_decoders():
        if drawn.random() < 0.5:
            found = decode_square(BytesIO(content), path, SIDE, decoding)
            assert found.pixels.shape == (SIDE, SIDE, 3)
        else:
            found = decode_file(BytesIO(content), path, at_least=drawn.choice((None, 8)), decoding=decoding)
            assert found.pixels.ndim == 3 and found.pixels.shape[2] == 3 and found.pixels.size
    assert found.pixels.dtype == np.uint8


def test_sound_images_are_answered() -> None:
    for suffix, of_kind in images().items():
        for content in of_kind.values():
            if content == images()[".png"]["16-bit colour"]:
                continue
            decode_square(BytesIO(content), Path(f"image{suffix}"), SIDE, Decoding("auto", 0))


@pytest.mark.parametrize("part", range(N_PARTS))
def test_damaged_images(tmp_path: Path, part: int) -> None:
    assert sweep(damaged_image, range(part * N_IMAGES, (part + 1) * N_IMAGES), tmp_path) > 0


# Tables

N_ROWS = 24
ODD_CELLS = (
    "", "nan", "-1", "0", "1", "2", "1e400", "9" * 5000, "٣", "²", "../../etc/passwd", "/etc/passwd", "a/../../b", "..",
    "\0", "\x1b[31m", '"', '""', "a\nb", "\r", ",", ";", "|", "a|b|", "\u202e", "\ufeff", "x" * 200_000, " ", ".", "~",
    "No Finding", "n01440764", "1001", "-0", "1.0", "True", "train", "TEST",
)  # fmt: skip
TABLES: dict[str, dict[str, str]] = {}
"""Folder -> table -> its sound content; filled by `datasets`."""
OPTIONS = (
    DataOptions(), DataOptions(max_skipped=1.0), DataOptions(label="label"), DataOptions(task="ordinal"),
    DataOptions(task="multilabel", uncertain="ones", blank="ignore"), DataOptions(group=""), DataOptions(split="split"),
    DataOptions(group="patient_id"), DataOptions(label=("a", "b", "c")), DataOptions(layout="csv"),
)  # fmt: skip


def _csv(columns: str, row: Callable[[int], Sequence[object]]) -> str:
    return "\n".join([columns, *(",".join(map(str, row(i))) for i in range(N_ROWS))]) + "\n"


def datasets(folder: Path) -> dict[str, dict[str, str]]:
    """Datasets of every layout that has a table, made once: folder -> table -> its sound content."""
    if TABLES:
        return TABLES
    findings = ("No Finding", "Cardiomegaly", "Edema", "Pneumonia", "Atelectasis", "Fracture")
    isic = _csv("image,MEL,NV", lambda i: (f"i{i}", i % 2, 1 - i % 2))
    numbers = "".join(f"{1 + i % 2}\n" for i in range(N_ROWS))
    ids = "".join(f"n0144{i % 2:04d}\n" for i in range(N_ROWS))
    patient = "CheXpert-v1.0/train/patient{:05d}/study1/view1.png"
    chexpert = _csv(
        ",".join(("Path", *findings)), lambda i: (patient.format(i), *(("1", "0", "-1", "") * 3)[i % 4 :][:6])
    )
    validation = [f"ILSVRC2012_val_{i + 1:08d}" for i in range(N_ROWS)]
    TABLES.update(
        {
            "classes": {"labels.csv": _csv("id,path,label", lambda i: (i, f"i{i}.png", "ab"[i % 2]))},
            "splits": {
                "labels.csv": _csv(
                    "path,label,split,patient_id",
                    lambda i: (f"i{i}.png", "ab"[i % 2], ("train", "train", "val", "test")[i % 4], f"p{i % 4}"),
                )
            },
            "grades": {"labels.csv": _csv("path;level".replace(";", ","), lambda i: (f"i{i}.png", i % 2))},
            "one hot": {"labels.csv": _csv("path,a,b", lambda i: (f"i{i}", i % 2, 1 - i % 2))},
            "findings": {"labels.csv": _csv("path,findings", lambda i: (f"i{i}", ("a|b", "b", "none")[i % 3]))},
            "ham10000": {
                "HAM10000_metadata.csv": _csv(
                    "lesion_id,image_id,dx", lambda i: (f"l{i // 2}", f"i{i}", "ab"[i // 2 % 2])
                )
            },
            "aptos2019": {"train.csv": _csv("id_code,diagnosis", lambda i: (f"i{i}", i % 2))},
            "chexpert": {"train.csv": chexpert, "valid.csv": chexpert.replace("train/patient", "valid/patient9")},
            "isic2018": {"ISIC2018_Task3_Training_GroundTruth.csv": isic},
            "imagenet kit": {"ILSVRC2012_validation_ground_truth.txt": numbers},
            "imagenet synsets": {"synset_labels.txt": ids},
            "imagenet val": {"val.txt": "".join(f"{name}.png {i % 2}\n" for i, name in enumerate(validation))},
            "imagenet kaggle": {
                "LOC_val_solution.csv": _csv(
                    "ImageId,PredictionString", lambda i: (validation[i], f"n0144{i % 2:04d} 1 2 3 4")
                )
            },
        }
    )
    for name, tables in TABLES.items():
        for i in range(N_ROWS):
            path = folder / name / f"i{i}.png"
            if name == "isic2018":
                path = folder / name / "ISIC2018_Task3_Training_Input" / f"i{i}.jpg"
            elif name == "chexpert":
                path = folder / name / patient.format(i).removeprefix("CheXpert-v1.0/")
                _save(Path(str(path).replace("train/patient", "valid/patient9")), 100 + i)
            elif name.startswith("imagenet"):
                path = path.with_name(f"{validation[i]}.png")
            _save(path, i)
        for table, text in tables.items():
            (folder / name / table).write_text(text)
    return TABLES


def _save(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(seed, 8, 8)).save(path)


def _changed_table(text: str, drawn: random.Random) -> bytes:
    """Odd cells, lost and repeated lines and columns, other dividers; or bytes changed anywhere."""
    if drawn.random() < 0.2:
        return mutated(text.encode(), drawn)
    lines = [line.split(",") for line in text.splitlines()]
    for _ in range(drawn.choice((1, 1, 1, 2, 3))):
        at = drawn.randrange(len(lines))
        column = drawn.randrange(max(1, len(lines[at])))
        match drawn.randrange(9):
            case 0 | 1 | 2 | 3:
                lines[at][column : column + 1] = [drawn.choice(ODD_CELLS)]
            case 4:
                lines[at].insert(column, drawn.choice(ODD_CELLS))
            case 5:
                lines.insert(at, [*lines[drawn.randrange(len(lines))]])
            case 6:
                lines = [line[:column] + line[column + 1 :] for line in lines]
            case 7:
                odd = drawn.choice(ODD_CELLS)
                lines = [*lines[:1], *([*line[:column], odd, *line[column + 1 :]] for line in lines[1:])]
            case _:
                del lines[at:]
                lines = lines or [[]]
    divider = "," if drawn.random() < 0.8 else drawn.choice(";\t|")
    coding = "utf-8" if drawn.random() < 0.8 else drawn.choice(("utf-8-sig",) * 9 + ("utf-16",))
    return drawn.choice(("\n", "\r\n", "\r")).join(divider.join(line) for line in lines).encode(coding)


def damaged_table(seed: int, folder: Path) -> None:
    """Reads a dataset whose table has one to three changes."""
    drawn = random.Random(f"table {seed}")
    known = datasets(folder)
    name = drawn.choice(list(known))
    table, text = drawn.choice(list(known[name].items()))
    path = folder / name / table
    try:
        path.write_bytes(_changed_table(text, drawn))
        options = DataOptions(max_skipped=0.5) if drawn.random() < 0.8 else drawn.choice(OPTIONS)
        manifest = read_dataset(folder / name, options)
        assert {item.split for item in manifest.items} == {"train", "val", "test"}
        assert all((folder / name / item.path).is_file() for item in manifest.items)
        assert manifest.digest
    finally:
        path.write_text(text)


def test_sound_tables_are_answered(tmp_path: Path) -> None:
    for name in datasets(tmp_path):
        assert read_dataset(tmp_path / name).items
    TABLES.clear()


def test_damaged_tables(tmp_path: Path) -> None:
    assert sweep(damaged_table, range(N_TABLES), tmp_path) > 0


# Arrays


def arrays(drawn: random.Random) -> dict[str, Any]:
    """A small dataset in the form of MedMNIST: grey or colour, single or multi-label."""
    is_colour, is_multilabel = drawn.random() < 0.5, drawn.random() < 0.3
    made: dict[str, Any] = {}
    for number, (split, n) in enumerate({"train": 12, "val": 4, "test": 4}.items()):
        pixels = np.stack([noise(100 * number + i, 8, 8) for i in range(n)])
        made[f"{split}_images"] = pixels if is_colour else pixels[..., 0]
        classes = np.arange(n)[:, None] % 2
        made[f"{split}_labels"] = np.hstack([classes, 1 - classes]) if is_multilabel else classes.astype(np.uint8)
    return made


def _odd_array(values: NDArray[Any], drawn: random.Random) -> NDArray[Any]:
    """The same array with another type, shape or range."""
    first = values.reshape(-1)[:1]
    return drawn.choice(
        (
            lambda: values.astype(drawn.choice(("f4", "f8", "i8", "u8", "?", "S3", "U3", "c8", "M8[s]", ">u2", "V0"))),
            lambda: values[: drawn.randrange(len(values))],
            lambda: values[..., None],
            lambda: values.reshape(-1),
            lambda: np.asfortranarray(values),
            lambda: np.zeros((0, *values.shape[1:]), values.dtype),
            lambda: np.zeros((len(values), 0), values.dtype),
            lambda: np.zeros((len(values), 1, 3000), values.dtype),
            lambda: np.full(values.shape, drawn.choice((-1, 255, 2**63 - 1))),
            lambda: np.array(first[0]),
            lambda: np.zeros(len(values), [("a", "u1"), ("b", "O" if drawn.random() < 0.3 else "f4")]),
            lambda: values.astype(object),
        )
    )()


def _npz(members: dict[str, bytes], drawn: random.Random) -> bytes:
    file = BytesIO()
    method = drawn.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def damaged_npz(seed: int, folder: Path) -> None:
    """Reads and decodes an `.npz` file with odd arrays, damaged arrays, or damage to the archive itself."""
    drawn = random.Random(f"npz {seed}")
    made = arrays(drawn)
    kind = drawn.randrange(4)
    odd = drawn.choice(list(made))
    if kind == 0:
        made[odd] = _odd_array(made[odd], drawn)
    members = {}
    for name, values in made.items():
        stream = BytesIO()
        np.lib.format.write_array(stream, values)
        members[f"{name}.npy"] = stream.getvalue()
    if kind == 1:  # the header, mostly
        content = members[f"{odd}.npy"]
        members[f"{odd}.npy"] = mutated(content[:128], drawn) + content[128:]
    elif kind == 2:  # behind it
        content = members[f"{odd}.npy"]
        behind = mutated(content[128:], drawn)[: len(content) - 128]
        members[f"{odd}.npy"] = content[:128] + behind + bytes(len(content) - 128 - len(behind))
    content = _npz(members, drawn)
    if kind == 3:
        content = mutated(content, drawn)
    path = folder / f"{drawn.choice(('any', 'pneumoniamnist', 'retinamnist'))}.npz"
    path.write_bytes(content)
    manifest = read_dataset(path)
    for found in source_of(path).squares(manifest.items, SIDE, manifest.decoding):
        if isinstance(found, SimtuiError):
            raise found
        assert isinstance(found, Decoded) and found.pixels.shape == (SIDE, SIDE, 3)


def test_sound_arrays_are_answered(tmp_path: Path) -> None:
    drawn = random.Random(0)
    path = tmp_path / "any.npz"
    for save in (np.savez, np.savez_compressed):
        save(path, **arrays(drawn))
        manifest = read_dataset(path)
        assert len(list(source_of(path).squares(manifest.items, SIDE, manifest.decoding))) == 20


def test_damaged_arrays(tmp_path: Path) -> None:
    assert sweep(damaged_npz, range(N_NPZ), tmp_path) > 0
