"""The attention of θ* and of a run's model on any image file: asked of a child process, kept in the user's cache.

Needs no torch: `engine.jobs.attention_child` loads the models. An answer lies under the digest of all that decides it
(the image's content, how it is decoded, the weights of both models), so it never grows old.
"""

from __future__ import annotations

import hashlib
import shlex
from dataclasses import replace
from pathlib import Path

from platformdirs import user_cache_path

from engine.errors import DamagedError, ImageError, StudyError
from engine.files import digest
from engine.finetune.methods import method_of
from engine.jobs.child import Request, kept_or_asked
from engine.runs.attention_maps import AttentionMaps, read_attention, refuse_stages
from engine.runs.record import RunRecord, State, remake_run, weights_name
from engine.runs.study_folder import StudyFolder

BEFORE_FILE, AFTER_FILE = "before.h5", "after.h5"
_PROTOCOL = "attention of one image; v1"
# An answer takes up to 1 MB for a ViT-L. The oldest go when there are more.
_N_KEPT = 200
# Loading ViT-L from a cold disk on two cores takes about a minute.
TIMEOUT_S = 300.0


def attention_of_image(
    folder: StudyFolder, record: RunRecord, image_path: Path, timeout_s: float = TIMEOUT_S
) -> tuple[AttentionMaps, AttentionMaps]:
    """The maps of one image by θ*, with its pixels, and by a run's model at its last epoch.

    The image is decoded as those of the study's dataset are. Both results are one object where the run's method trains
    no backbone. The image's id is the name of its file; its domain is "file".

    Args:
        image_path: a file that `engine.data.images` reads.
        timeout_s: how long the child process may take.
    Raises:
        StudyError: the run is not done, its weights were not kept or were freed, or its backbone has no attention.
        ImageError: there is no such file, or no regular one.
        MachineError: the child process crashes, or takes too long.
        SimtuiError: what the child process expects: an image or weights that cannot be read, other weights than the
            run's, a backbone whose attention cannot be read.
    """
    refuse_stages(record)
    is_frozen = weights_of(folder, record) is None
    sha256 = _content_of(image_path)
    arguments = (folder.path.resolve(), record.run_id, image_path.absolute())
    request = Request("attention_child", arguments, str(image_path), "its attention", timeout_s)
    place = _cache_path() / _key(folder, record, sha256)
    found = kept_or_asked(place, _N_KEPT, request, lambda written: _answer(written, sha256, is_frozen))
    before, after = (replace(maps, images=(image_path.name,)) for maps in found)
    return before, before if is_frozen else after


def weights_of(folder: StudyFolder, record: RunRecord) -> Path | None:
    """The weights of a run after its last epoch; None where its method leaves the backbone as it is.

    Raises:
        StudyError: the run is not done, or its weights were not kept or were freed.
    """
    if record.state is not State.DONE:
        fix = f"simtui run {shlex.quote(str(folder.path))} goes on with it"
        raise StudyError(record.run_id, f"is {record.state}: its last weights are not there yet", fix)
    if not method_of(record.spec.method).trains_backbone:
        return None
    name, run_path = weights_name(record.spec.epochs), folder.run_path(record.run_id)
    if name in record.files:
        return run_path / name
    if record.spec.keep == "none":
        fix = 'set keep = "ends" under [study] and run the study again in a new folder'
        raise StudyError(record.run_id, 'its weights were not kept (study.keep = "none")', fix)
    raise StudyError(record.run_id, "its weights were freed", f"{remake_run(run_path)} trains it again")


def _content_of(path: Path) -> str:
    """SHA-256 of a file that an image may be in."""
    from engine.data.images import open_regular  # loads Pillow, which whoever only looks at a study does without

    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except ValueError as error:  # a name that no file can have
        raise ImageError(str(path), "no such file", "give the path of an image") from error


def _key(folder: StudyFolder, record: RunRecord, sha256: str) -> str:
    from engine.data.images import SQUARE_PROTOCOL

    data, provenance = folder.study.data, record.provenance
    content = [
        *(_PROTOCOL, SQUARE_PROTOCOL, sha256, data.window, data.frame, record.spec.backbone.name),
        *(provenance.input_size, provenance.weights_sha256, record.run_id),
        record.files.get(weights_name(record.spec.epochs), ""),
    ]
    return digest(content)


def _cache_path() -> Path:
    return user_cache_path("simtui") / "attention"


def _answer(place: Path, sha256: str, is_frozen: bool) -> tuple[AttentionMaps, AttentionMaps]:
    remake = f"rm -r {shlex.quote(str(place))}, and ask again"
    before = read_attention(place / BEFORE_FILE, remake)
    after = before if is_frozen else read_attention(place / AFTER_FILE, remake)
    for maps in (before, after):
        if maps.images != (sha256,):
            raise DamagedError(str(place), "is of another image than its name says", remake)
    return before, after
