"""The process that decodes: what it gives, that it is kept, and replaced where an image ends or stalls it."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import numpy as np
import pytest
from pydicom.pixels.utils import pixel_array

from engine.data import dicom_child
from engine.data.dicom_child import pixels_in_child
from tests.engine.data.making import pydicom_file

CONTENT = pydicom_file("MR_small_jp2klossless.dcm").read_bytes()


@pytest.fixture(autouse=True)
def _own_children(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No child of another test is used, and none is left behind."""
    children: list[dicom_child._Child] = []
    monkeypatch.setattr(dicom_child, "_idle", children)
    yield
    while children:
        children.pop().end()


def test_pixels_are_those_of_pydicom_and_the_child_is_kept() -> None:
    expected = pixel_array(pydicom_file("MR_small.dcm"))
    np.testing.assert_array_equal(pixels_in_child(CONTENT, 0), expected)
    (child,) = dicom_child._idle
    np.testing.assert_array_equal(pixels_in_child(CONTENT, 0), expected)
    assert dicom_child._idle == [child]


def test_an_image_that_cannot_be_decoded_costs_no_child() -> None:
    pixels_in_child(CONTENT, 0)
    (child,) = dicom_child._idle
    with pytest.raises(ValueError, match=r"^.*Transfer Syntax UID"):
        pixels_in_child(b"text", 0)
    assert dicom_child._idle == [child]
    assert pixels_in_child(CONTENT, 0).shape == (64, 64)


def test_a_child_that_ends_is_replaced() -> None:
    pixels_in_child(CONTENT, 0)
    (child,) = dicom_child._idle
    child.process.send_signal(signal.SIGSEGV)
    child.process.wait()
    with pytest.raises(ValueError, match=r"^crashes its decoder \(exit code -11\)$"):
        pixels_in_child(CONTENT, 0)
    assert dicom_child._idle == []
    assert pixels_in_child(CONTENT, 0).shape == (64, 64)


def test_a_child_that_stalls_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels_in_child(CONTENT, 0)
    (child,) = dicom_child._idle
    child.process.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(dicom_child, "_LIMIT_S", 0.05)
    with pytest.raises(ValueError, match=r"^keeps its decoder busy for more than 0 s$"):
        pixels_in_child(CONTENT, 0)
    assert child.process.returncode == -signal.SIGKILL
    assert dicom_child._idle == []


def test_an_interruption_ends_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels_in_child(CONTENT, 0)
    (child,) = dicom_child._idle

    def interrupt(_: object) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(type(child.connection), "poll", lambda *_: interrupt(None))
    with pytest.raises(KeyboardInterrupt):
        pixels_in_child(CONTENT, 0)
    assert child.process.returncode == -signal.SIGKILL
    assert dicom_child._idle == []
