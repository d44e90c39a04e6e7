"""Reads what DICOM headers say of a dataset's images, patients above all; decodes no pixels, knows no tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from engine.data import dicom
from engine.data.images import open_regular
from engine.data.layouts.layout import Listing
from engine.errors import ImageError

UID = "SOPInstanceUID"
PATIENT = "PatientID"


class Headers:
    """The headers of the images, each read once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._texts: dict[str, dict[str, str]] = {}

    def text(self, path: str, keyword: str) -> str:
        """The value of an element; empty where it is absent, or the file cannot be read."""
        texts = self._texts.setdefault(path, {})
        if keyword not in texts:
            try:
                with open_regular(self._root / path) as file:
                    header = dicom.read_header(file, self._root / path)
                for name in {keyword, UID, PATIENT}:
                    texts[name] = dicom.header_text(header, name)
            except (ImageError, OSError):  # said, counted and skipped when the images are read
                texts[keyword] = ""
        return texts[keyword]

    def by_uid(self, paths: Iterable[str]) -> dict[str, list[str]]:
        """SOP instance UID -> the files that have it: one, but for copies."""
        found: defaultdict[str, list[str]] = defaultdict(list)
        for path in paths:
            found[self.text(path, UID)].append(path)
        found.pop("", None)
        return found


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM: by suffix, or by content where there is none, as scanners name their files."""
    if path.suffix.lower() in dicom.SUFFIXES:
        return True
    if not may_be_dicom(path):
        return False
    try:
        with open_regular(path) as file:
            return dicom.is_dicom(file, path)
    except (ImageError, OSError):
        return False


def may_be_dicom(path: Path) -> bool:
    """Whether a file may be DICOM by its name: "1.2.840.113619" is one without suffix."""
    return path.suffix.lower() in ("", *dicom.SUFFIXES) or path.suffix[1:].isdecimal()


def grouped(listing: Listing, headers: Headers, keyword: str = PATIENT) -> Listing:
    """The listing with groups from an element; without any where it is alike in all, as in anonymised files."""
    entries = tuple(replace(entry, group=headers.text(entry.path, keyword) or None) for entry in listing.entries)
    if len({entry.group for entry in entries} - {None}) > 1:
        return replace(listing, entries=entries, group_name=keyword)
    warning = f"the headers name no patients ({keyword} is alike in all): images of one may be in two splits"
    entries = tuple(replace(entry, group=None) for entry in entries)
    return replace(listing, entries=entries, group_name=None, warnings=(*listing.warnings, warning))
