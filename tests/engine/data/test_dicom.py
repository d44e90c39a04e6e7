"""DICOM files through the one decoder, against pydicom's own windows and tables, and those that are refused."""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut
from pydicom.pixels.utils import pixel_array

from engine.data.dicom import header_text, is_dicom, read_header, size_of_header
from engine.data.images import Decoded, decode, decode_file, decode_square, open_regular, quiet_decoders
from engine.data.intensity import AS_STORED, Decoding
from engine.errors import DataError, ImageError
from tests.engine.data.making import noise, pydicom_file, save_dicom

NEEDS_WINDOW = '16-bit image; set data.window = [low, high] or "auto"'


def decoded(path: Path, decoding: Decoding = AS_STORED) -> Decoded:
    with quiet_decoders(), open_regular(path) as file:
        return decode_file(file, path, decoding=decoding)


def grey(path: Path, decoding: Decoding = AS_STORED) -> NDArray[np.uint8]:
    """`(h, w)`; the three channels are alike."""
    pixels = decoded(path, decoding).pixels
    assert (pixels[:, :, :1] == pixels).all()
    return pixels[:, :, 0]


def problem_of(path: Path, kind: type[ImageError | DataError], decoding: Decoding = AS_STORED) -> str:
    with pytest.raises(kind) as caught:
        decoded(path, decoding)
    assert type(caught.value) is kind
    assert caught.value.where == str(path)
    assert caught.value.fix
    return caught.value.problem


def changed(path: Path, name: str, **elements: Any) -> Path:
    """One of pydicom's files with other elements; None removes one."""
    dataset = pydicom.dcmread(pydicom_file(name))
    for keyword, value in elements.items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    dataset.save_as(path)
    return path


def small(path: Path, values: NDArray[Any], **elements: Any) -> Path:
    """A grey image of 16-bit values."""
    bits = {"BitsAllocated": 16, "BitsStored": 16, "HighBit": 15, "PixelRepresentation": int(values.dtype.kind == "i")}
    size = {"Rows": values.shape[0], "Columns": values.shape[1]}
    return save_dicom(path, 1, **(bits | size | {"PixelData": values.tobytes()} | elements))


# Windows


def voi_of_pydicom(path: Path) -> NDArray[np.float64]:
    """pydicom's own window over all that it can give, rescaled to 0 … 255."""
    dataset = pydicom.dcmread(path)
    values = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset).astype(np.float64)
    n_bits = dataset.BitsStored
    low, high = (-(2 ** (n_bits - 1)), 2 ** (n_bits - 1) - 1) if dataset.PixelRepresentation else (0, 2**n_bits - 1)
    slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
    low, high = low * slope + intercept, high * slope + intercept
    return (values - low) / (high - low) * 255


@pytest.mark.parametrize(
    "name", ["MR_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "693_J2KI.dcm", "examples_overlay.dcm"]
)
def test_the_files_own_window_is_that_of_pydicom(name: str) -> None:
    path = pydicom_file(name)
    np.testing.assert_allclose(grey(path), voi_of_pydicom(path), atol=0.51)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_window_functions_are_those_of_pydicom(tmp_path: Path, function: str) -> None:
    values = np.arange(-800, 800, dtype=np.int16).reshape(40, 40)
    window = {"WindowCenter": 100, "WindowWidth": 500, "VOILUTFunction": function}
    path = small(tmp_path / "x.dcm", values, RescaleSlope="1", RescaleIntercept="0", **window)
    np.testing.assert_allclose(grey(path), voi_of_pydicom(path), atol=0.51)


def test_modality_comes_before_the_window(tmp_path: Path) -> None:
    values = np.array([[0, 1000, 1100, 1150, 1200, 3000]], np.uint16)
    elements: dict[str, Any] = {"RescaleSlope": "2", "RescaleIntercept": "-2000"}
    window: dict[str, Any] = {"WindowCenter": 200, "WindowWidth": 400, "VOILUTFunction": "LINEAR_EXACT"}
    path = small(tmp_path / "x.dcm", values, **elements, **window)
    assert grey(path)[0].tolist() == [0, 0, 128, 191, 255, 255]
    path = small(tmp_path / "y.dcm", values, **elements)
    assert grey(path, Decoding((0.0, 400.0)))[0].tolist() == [0, 0, 128, 191, 255, 255]


def test_the_first_of_several_windows(tmp_path: Path) -> None:
    path = changed(tmp_path / "x.dcm", "MR_small.dcm", WindowCenter=[600, 40], WindowWidth=[1600, 80])
    np.testing.assert_array_equal(grey(path), grey(pydicom_file("MR_small.dcm")))


def test_a_window_of_one_level(tmp_path: Path) -> None:
    values = np.array([[98, 99, 100, 101]], np.uint16)
    assert grey(small(tmp_path / "x.dcm", values, WindowCenter=100, WindowWidth=1))[0].tolist() == [0, 0, 255, 255]


def test_the_users_window_comes_before_the_files() -> None:
    path = pydicom_file("MR_small.dcm")
    values = pydicom.dcmread(path).pixel_array.astype(np.float64)
    np.testing.assert_array_equal(
        grey(path, Decoding((200.0, 700.0))), np.rint(255 * np.clip((values - 200) / 500, 0, 1))
    )
    low, high = np.percentile(values, (0.5, 99.5))
    expected = np.rint(255 * np.clip((values - low) / (high - low), 0, 1))
    np.testing.assert_array_equal(grey(path, Decoding("auto")), expected)


def test_a_lookup_table_comes_before_the_files_window(tmp_path: Path) -> None:
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [4, 10, 8], [5, 250, 100, 0]
    values = np.array([[0, 10, 11, 12, 13, 99]], np.uint16)
    path = small(tmp_path / "x.dcm", values, WindowCenter=5, WindowWidth=10)
    dataset = pydicom.dcmread(path)
    dataset.VOILUTSequence = [table]
    dataset["VOILUTSequence"][0].LUTData = [5, 250, 100, 0]
    dataset["VOILUTSequence"][0]["LUTData"].VR = "US"
    dataset["VOILUTSequence"][0]["LUTDescriptor"].VR = "US"
    dataset.save_as(path)
    assert grey(path)[0].tolist() == [5, 5, 250, 100, 0, 0]


def test_without_any_window(tmp_path: Path) -> None:
    assert problem_of(pydicom_file("CT_small.dcm"), DataError) == NEEDS_WINDOW
    path = changed(tmp_path / "x.dcm", "MR_small.dcm", WindowWidth=None)
    assert problem_of(path, DataError) == NEEDS_WINDOW
    values = apply_modality_lut((ct := pydicom.dcmread(pydicom_file("CT_small.dcm"))).pixel_array, ct)
    expected = np.rint(255 * np.clip((values + 1000) / 1400, 0, 1))
    np.testing.assert_array_equal(grey(pydicom_file("CT_small.dcm"), Decoding((-1000.0, 400.0))), expected)


def test_12_bit_images_need_a_window_too(tmp_path: Path) -> None:
    path = small(tmp_path / "x.dcm", np.zeros((4, 4), np.uint16), BitsStored=12, HighBit=11)
    assert problem_of(path, DataError) == '12-bit image; set data.window = [low, high] or "auto"'


def test_8_bit_images_need_none(tmp_path: Path) -> None:
    np.testing.assert_array_equal(grey(save_dicom(tmp_path / "x.dcm", 5)), noise(5)[:, :, 0])


def test_inverted_greys_are_turned_round(tmp_path: Path) -> None:
    for name, decoding in (("MR_small.dcm", AS_STORED), ("CT_small.dcm", Decoding((-500.0, 500.0)))):
        path = changed(tmp_path / name, name, PhotometricInterpretation="MONOCHROME1")
        assert decoded(path, decoding).mode == "DICOM MONOCHROME1 16-bit"
        np.testing.assert_array_equal(grey(path, decoding), 255 - grey(pydicom_file(name), decoding))
    path = save_dicom(tmp_path / "x.dcm", 5, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(grey(path), 255 - noise(5)[:, :, 0])


def test_pixels_that_are_not_numbers(tmp_path: Path) -> None:
    values = np.ones((4, 4), np.float32)
    values[0, :3] = np.nan
    path = tmp_path / "x.dcm"
    dataset = pydicom.dcmread(save_dicom(path, 1, Rows=4, Columns=4, BitsAllocated=32, WindowCenter=1, WindowWidth=2))
    del dataset.PixelData, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation
    dataset.FloatPixelData = values.tobytes()
    dataset.save_as(path)
    assert problem_of(path, ImageError) == "3 pixels are not numbers"
    dataset.FloatPixelData = np.ones((4, 4), np.float32).tobytes()
    del dataset.WindowCenter
    dataset.save_as(path)
    assert problem_of(path, DataError) == '32-bit image; set data.window = [low, high] or "auto"'
    assert grey(path, Decoding((0.0, 2.0)))[0].tolist() == [128] * 4


# Colour


@pytest.mark.parametrize(
    "name", ["SC_rgb_rle.dcm", "ExplVR_BigEnd.dcm", "SC_rgb_small_odd.dcm", "SC_rgb_jpeg_gdcm.dcm"]
)
def test_colours_are_as_stored(name: str) -> None:
    found = decoded(pydicom_file(name))
    expected = pixel_array(pydicom_file(name))
    np.testing.assert_array_equal(found.pixels, expected)
    assert found.size == expected.shape[1::-1]
    assert found.mode == "DICOM RGB 8-bit"


def test_luma_and_chroma_become_rgb() -> None:
    path = pydicom_file("SC_ybr_full_422_uncompressed.dcm")
    np.testing.assert_array_equal(decoded(path).pixels, pixel_array(path))
    # It shows stripes of full red, green and blue.
    assert {(255, 0, 0), (0, 255, 0), (0, 0, 255)} <= {
        tuple(255 if level > 250 else 0 if level < 5 else level for level in pixel)
        for pixel in decoded(path).pixels.reshape(-1, 3).tolist()
    }


def test_a_palette() -> None:
    path = pydicom_file("examples_palette.dcm")
    dataset = pydicom.dcmread(path)
    expected = apply_color_lut(dataset.pixel_array, dataset) / 65_535 * 255
    np.testing.assert_allclose(decoded(path).pixels, expected, atol=1)
    assert decoded(path).pixels.std() > 10
    assert decoded(path).mode == "DICOM PALETTE COLOR 8-bit"


@pytest.mark.parametrize(("name", "bits"), [("SC_rgb_rle_16bit.dcm", 16), ("SC_rgb_rle_32bit.dcm", 32)])
def test_deep_colours_are_refused(name: str, bits: int) -> None:
    for decoding in (AS_STORED, Decoding("auto")):
        assert problem_of(pydicom_file(name), DataError, decoding) == f"{bits}-bit colour image"


# Frames


def test_frames() -> None:
    path = pydicom_file("SC_rgb_rle_2frame.dcm")
    assert problem_of(path, DataError) == "2 frames; set data.frame = 0"
    both = pixel_array(path)
    for number in (0, 1):
        np.testing.assert_array_equal(decoded(path, Decoding(frame=number)).pixels, both[number])
    assert (both[0] != both[1]).any()
    assert problem_of(path, ImageError, Decoding(frame=2)) == "2 frames; none has the number 2"
    assert problem_of(pydicom_file("rtdose.dcm"), DataError) == "15 frames; set data.frame = 0"


def test_one_frame_needs_no_number() -> None:
    path = pydicom_file("MR_small.dcm")
    np.testing.assert_array_equal(grey(path, Decoding(frame=0)), grey(path))


# Compression


@pytest.mark.parametrize("name", ["MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_RLE.dcm"])
def test_lossless_compression_loses_nothing(name: str) -> None:
    np.testing.assert_array_equal(grey(pydicom_file(name)), grey(pydicom_file("MR_small.dcm")))


def test_compression_that_is_not_read() -> None:
    problem = problem_of(pydicom_file("JPGExtended.dcm"), ImageError)
    assert problem.startswith("DICOM that cannot be decoded (")
    assert "\n" not in problem


def test_deflated_files_are_refused_before_anything_is_inflated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zlib, "decompress", lambda *_, **__: pytest.fail("inflated"))
    problem = problem_of(pydicom_file("image_dfl.dcm"), ImageError)
    assert problem == "DICOM deflated as a whole, which is not read"


# What is no image


@pytest.mark.parametrize(
    "name", ["rtstruct.dcm", "test-SR.dcm", "rtplan.dcm", "reportsi.dcm", "waveform_ecg.dcm", "UN_sequence.dcm"]
)
def test_dicom_without_pixels(name: str) -> None:
    assert problem_of(pydicom_file(name), ImageError) == "DICOM without pixel data"


def test_size_without_pixels(tmp_path: Path) -> None:
    path = changed(tmp_path / "x.dcm", "MR_small.dcm", PixelData=None)
    assert problem_of(path, ImageError) == "DICOM without pixel data"


def test_cut_short(tmp_path: Path) -> None:
    assert problem_of(pydicom_file("MR_truncated.dcm"), ImageError) == "image is cut short"
    content = pydicom_file("MR_small.dcm").read_bytes()
    (tmp_path / "x.dcm").write_bytes(content[: len(content) // 2])
    assert problem_of(tmp_path / "x.dcm", ImageError) == "image is cut short"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"text", "not an image"),
        (b"\x08\x00 and then text that is no DICOM at all", "DICOM without pixel data"),
        (b"\0" * 128 + b"DICM", "DICOM without pixel data"),
    ],
)
def test_text_named_dcm(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "x.dcm").write_bytes(content)
    assert problem_of(tmp_path / "x.dcm", ImageError) == problem


@pytest.mark.parametrize(
    ("size", "problem"),
    [((50_000, 50_000), "2500 megapixels; limit 100"), ((10, 510), "aspect ratio 51; limit 50")],
)
def test_absurd_sizes_are_refused_from_the_header(tmp_path: Path, size: tuple[int, int], problem: str) -> None:
    path = save_dicom(tmp_path / "x.dcm", 1, Rows=size[0], Columns=size[1])
    assert problem_of(path, ImageError) == problem


def test_elements_that_make_no_sense(tmp_path: Path) -> None:
    problem = problem_of(pydicom_file("badVR.dcm"), ImageError)
    assert problem == "DICOM that cannot be decoded (invalid literal for int() with base 10: '1A')"
    path = save_dicom(tmp_path / "x.dcm", 1, PhotometricInterpretation="MONOCHROME9")
    assert problem_of(path, ImageError).startswith("DICOM that cannot be decoded (")


# Names


def test_dicom_by_content(tmp_path: Path) -> None:
    for name in ("x.png", "x", "1.2.840"):
        path = save_dicom(tmp_path / name, 5)
        found = decoded(path)
        np.testing.assert_array_equal(found.pixels[:, :, 0], noise(5)[:, :, 0])
        assert found.notes == (("DICOM by content, PNG by name",) if name == "x.png" else ())


def test_without_a_preamble(tmp_path: Path) -> None:
    whole = save_dicom(tmp_path / "whole.dcm", 5).read_bytes()
    (tmp_path / "x.dcm").write_bytes(whole[132:])
    np.testing.assert_array_equal(grey(tmp_path / "x.dcm"), noise(5)[:, :, 0])
    (tmp_path / "x.png").write_bytes(whole[132:])  # of any other name it is no DICOM, and no image
    assert problem_of(tmp_path / "x.png", ImageError) == "not an image"


@pytest.mark.parametrize(
    ("head", "name", "is_one"),
    [
        (b"\0" * 128 + b"DICM", "x.png", True),
        (b"\0" * 128 + b"DICX", "x.dcm", False),
        (b"\x08\x00\x05\x00", "x.IMA", True),
        (b"\x02\x00\x05\x00", "x.dicom", True),
        (b"\x08\x00\x05\x00", "x", False),
        (b"\x08\x01\x05\x00", "x.dcm", False),
        (b"", "x.dcm", False),
    ],
)
def test_what_is_dicom(head: bytes, name: str, is_one: bool) -> None:
    file = io.BytesIO(head)
    assert is_dicom(file, Path(name)) is is_one
    assert file.tell() == 0


def test_a_png_named_dcm_is_a_png(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(noise(1)).save(tmp_path / "x.dcm", format="PNG")
    found = decoded(tmp_path / "x.dcm")
    np.testing.assert_array_equal(found.pixels, noise(1))
    assert found.notes == ("PNG by content, DICOM by name",)


# Headers


def test_headers(tmp_path: Path) -> None:
    path = save_dicom(tmp_path / "x.dcm", 3, PatientID=" P7 ", PatientName="A^B")
    with path.open("rb") as file:
        header = read_header(file, path)
        assert file.tell() == 0
    assert "PixelData" not in header
    assert [header_text(header, name) for name in ("PatientID", "PatientName", "SOPInstanceUID", "StudyID", "x")] == [
        "P7", "A^B", "1.2.3.3", "", "",
    ]  # fmt: skip
    assert size_of_header(header, path) == (16, 12, 1)


def test_a_header_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("text")
    with (tmp_path / "x").open("rb") as file, pytest.raises(ImageError) as caught:
        read_header(file, tmp_path / "x")
    assert caught.value.problem == "not an image"


def test_an_element_that_cannot_be_read_is_empty(tmp_path: Path) -> None:
    class Hostile:
        def get(self, _: str) -> Sequence[str]:
            raise ValueError("bad bytes")

    assert header_text(Hostile(), "PatientID") == ""  # type: ignore[arg-type]


def test_square_and_decode_take_dicom_as_any_image(tmp_path: Path) -> None:
    path = save_dicom(tmp_path / "x.dcm", 5)
    from PIL import Image

    Image.fromarray(noise(5)[:, :, 0]).save(tmp_path / "x.png")
    np.testing.assert_array_equal(decode(path), decode(tmp_path / "x.png"))
    with path.open("rb") as one, (tmp_path / "x.png").open("rb") as other:
        found, expected = decode_square(one, path, 8), decode_square(other, tmp_path / "x.png", 8)
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    assert (found.size, found.mode) == ((16, 12), "DICOM MONOCHROME2 8-bit")
