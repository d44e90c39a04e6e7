"""The guard declares torchvision's operators where they are missing, once, and only there."""

from __future__ import annotations

import importlib.util
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest
import torch

from engine.backbones import torchvision_guard
from engine.backbones.torchvision_guard import guard

LIBRARY = f"_C{EXTENSION_SUFFIXES[0]}"


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What the guard declares on a machine where the operators do not exist yet."""
    calls: list[tuple[str, str]] = []

    class Library:
        def __init__(self, namespace: str, kind: str) -> None:
            calls.append((namespace, kind))

        def define(self, signature: str) -> None:
            calls.append(("define", signature.partition("(")[0]))

    monkeypatch.setattr(torch.library, "Library", Library)
    monkeypatch.setattr(torchvision_guard, "_declared", [])
    monkeypatch.setattr(torchvision_guard, "_operators_exist", lambda: bool(calls))
    return calls


def pretend_torchvision(monkeypatch: pytest.MonkeyPatch, folder: Path | None) -> None:
    spec = importlib.util.spec_from_loader("torchvision", None, is_package=True)
    assert spec is not None
    spec.submodule_search_locations = [str(folder)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec if folder else None)


def test_guard_makes_torchvision_importable_here() -> None:
    guard()
    import torchvision

    assert torchvision.__version__
    assert hasattr(torch.ops.torchvision, "nms")


def test_operators_are_declared_once_where_the_compiled_ones_do_not_load(
    declared: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / LIBRARY).write_bytes(b"built for another torch")
    pretend_torchvision(monkeypatch, tmp_path)
    guard()
    guard()
    assert declared == [("torchvision", "DEF"), ("define", "nms"), ("define", "qnms")]
    assert len(torchvision_guard._declared) == 1  # kept alive


def test_operators_are_declared_where_there_is_no_compiled_library(
    declared: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pretend_torchvision(monkeypatch, tmp_path)
    guard()
    assert ("define", "nms") in declared


def test_matching_torchvision_is_loaded_and_left_alone(
    declared: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / LIBRARY).touch()
    pretend_torchvision(monkeypatch, tmp_path)
    loaded: list[Path] = []
    monkeypatch.setattr(torch.ops, "load_library", loaded.append)
    monkeypatch.setattr(
        torchvision_guard, "_operators_exist", lambda: bool(loaded)
    )  # as its initialiser registers them
    guard()
    assert loaded == [tmp_path / LIBRARY]
    assert declared == []


def test_absent_torchvision_is_left_absent(declared: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_torchvision(monkeypatch, None)
    guard()
    assert declared == []
