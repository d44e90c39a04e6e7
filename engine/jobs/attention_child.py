"""Computes the attention of θ* and of a run's model on one image, in a process that loads torch.

`python -m engine.jobs.attention_child STUDY RUN IMAGE OUT`. Expected errors are the last line of its output, as JSON.
In the files the image goes by the SHA-256 of its content, so that whoever asked can see that it was not exchanged.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from engine.activations.extract import centre_crop
from engine.backbones.backbone import Backbone
from engine.data.images import decode_square, open_regular, quiet_decoders
from engine.data.intensity import Decoding
from engine.data.pixels import side_of
from engine.errors import DamagedError, DataError, StudyError
from engine.files import sha256_file
from engine.finetune.attention import attention_maps
from engine.finetune.learner import restore_backbone
from engine.finetune.reference import load_reference_backbone
from engine.jobs.attention import AFTER_FILE, BEFORE_FILE, weights_of
from engine.jobs.child import answer_for
from engine.jobs.device import on_device, study_device
from engine.runs.attention_maps import AttentionMaps, write_attention
from engine.runs.record import RunRecord, remake_run, weights_name
from engine.runs.study_folder import StudyFolder
from engine.study import BackboneSection


def write_answer(folder: StudyFolder, record: RunRecord, image_path: Path, out: Path) -> None:
    """Writes `before.h5` into a folder, and `after.h5` before it where the run trains the backbone.

    Raises:
        SimtuiError: see `engine.jobs.attention.attention_of_image`.
    """
    weights_path = weights_of(folder, record)
    if weights_path:
        _refuse_other_checkpoint(folder, record, weights_path)
    pixels, sha256 = _decoded(image_path, folder, record.provenance.input_size)
    section = _section(folder, record)
    device = study_device(folder.study.machine.device)
    found = on_device(device, lambda device: _maps(section, record, weights_path, pixels, sha256, device))
    for name, maps in zip((BEFORE_FILE, AFTER_FILE), found, strict=False):
        write_attention(out / name, maps)


def _maps(
    section: BackboneSection,
    record: RunRecord,
    weights_path: Path | None,
    pixels: Tensor,
    sha256: str,
    device: torch.device,
) -> tuple[AttentionMaps, ...]:
    """θ*'s maps, and those of the run's model where it has weights of its own."""
    backbone = load_reference_backbone(section, device)
    _refuse_other_backbone(backbone, record)
    before = _taken(backbone, pixels, sha256, with_pixels=True)
    if weights_path is None:
        return (before,)
    restore_backbone(backbone, weights_path)
    return before, _taken(backbone, pixels, sha256)


def _taken(backbone: Backbone, pixels: Tensor, sha256: str, *, with_pixels: bool = False) -> AttentionMaps:
    try:
        return attention_maps(backbone, pixels, (sha256,), ("file",), with_pixels=with_pixels)
    except StudyError as error:
        raise StudyError(error.where, error.problem, "choose a run of another backbone") from error


def _decoded(path: Path, folder: StudyFolder, input_size: int) -> tuple[Tensor, str]:
    """`(1, s, s, 3)` uint8 as the backbone sees the images of the study, and the SHA-256 of the file."""
    data = folder.study.data
    with open_regular(path) as file, quiet_decoders():
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        try:
            decoded = decode_square(file, path, side_of(input_size), Decoding(data.window, data.frame))
        except DataError as error:  # it asks for a setting, which a study that has begun cannot take any more
            seen = error.problem.partition(";")[0]
            problem = f"{seen}, and the study says nothing of how to read such"
            raise DataError(error.where, problem, "save it as an 8-bit image of one frame") from error
    return centre_crop(torch.from_numpy(decoded.pixels)[None], input_size), sha256


def _section(folder: StudyFolder, record: RunRecord) -> BackboneSection:
    """The run's backbone; its weights may have moved since, and the study file then says where to."""
    asked = replace(record.spec.backbone, weights=None)
    return next((each for each in folder.study.backbone if replace(each, weights=None) == asked), record.spec.backbone)


def _refuse_other_backbone(backbone: Backbone, record: RunRecord) -> None:
    was, info = record.provenance, backbone.info
    for what, before, now in (
        ("the weights", was.weights_sha256, info.weights_sha256),
        ("the input size", was.input_size, info.input_size),
    ):
        if before != now:
            problem = f"{what} differ from those that the run began with (were {str(before)[:16]}, are {str(now)[:16]})"
            raise StudyError(f'backbone "{info.name}"', problem, "put them back")


def _refuse_other_checkpoint(folder: StudyFolder, record: RunRecord, path: Path) -> None:
    remake = remake_run(folder.run_path(record.run_id))
    try:
        if sha256_file(path) != record.files[weights_name(record.spec.epochs)]:
            raise DamagedError(str(path), "is another file than the run ended with", remake)
    except OSError as error:
        raise DamagedError(str(path), f"cannot be read ({error.strerror or error})", remake) from error


def main(arguments: list[str]) -> int:
    """Writes the answer, or prints the error as JSON; returns the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("study", type=Path)
    parser.add_argument("run")
    parser.add_argument("image", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args(arguments)
    torch.backends.cudnn.allow_tf32 = False  # as in training: it must never decide a digit

    def compute() -> None:
        folder = StudyFolder(options.study)
        write_answer(folder, folder.record(options.run), options.image, options.out)

    return answer_for(compute)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
