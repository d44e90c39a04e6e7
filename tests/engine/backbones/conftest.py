"""A hub cache in a temporary folder, in the layout that huggingface_hub writes, and no network."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.files import sha256_file

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, str, Path], None]]:
    """Puts a file into the cache as `repository/filename`."""
    cache = tmp_path_factory.mktemp("hub")

    def put(repository: str, filename: str, path: Path) -> None:
        folder = cache / f"models--{repository.replace('/', '--')}"
        snapshot = folder / "snapshots" / REVISION
        for each in (folder / "refs", folder / "blobs", snapshot):
            each.mkdir(parents=True)
        (folder / "refs" / "main").write_text(REVISION)
        blob = folder / "blobs" / sha256_file(path)
        os.link(path, blob)
        (snapshot / filename).symlink_to(os.path.relpath(blob, snapshot))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        patch.setattr("huggingface_hub.constants.ENDPOINT", "https://huggingface.co")
        yield put
