"""Owns what may change of a study that has begun, and names what may not; knows nothing of files.

A run is named by its settings, so more runs can be asked for at any time. Settings that would mix results that do not
belong together are refused, with the first that differs.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from engine.errors import StudyError
from engine.study import RunSpec, Study, plain

_FREE_OF_A_RUN = (
    "study",
    "dataset",
    "keep",
    "backbone.weights",
    "finetune.methods",
    "finetune.seeds",
    "finetune.epochs",
)


def extended_study(frozen: Study, asked: Study, *, has_begun: bool = True) -> Study:
    """The study to go on with in a folder that holds `frozen`: more runs may be asked for, other settings may not.

    Args:
        has_begun: whether any run has computed something. Until then the images may be others, or read otherwise: a
            study that a bad image stopped at its start goes on in its folder once that is mended.
    Raises:
        StudyError: names the first setting that differs and would mix results that do not belong together.
    """
    if asked.imported and frozen.imported:  # more trainings, and more of their checkpoints
        free = replace(asked, imported=replace(asked.imported, training=frozen.imported.training))
    else:
        free = asked
    free = replace(free, backbone=frozen.backbone, machine=frozen.machine, executor=frozen.executor)
    if not has_begun:
        # Their number is part of what names a run.
        origin = replace(frozen.origin, n=asked.origin.n) if frozen.origin and asked.origin else asked.origin
        free = replace(free, data=frozen.data, origin=origin)
    # What is said of a method decides only its own runs.
    new = set(asked.finetune.methods) - set(frozen.finetune.methods)
    rates = {name: rate for name, rate in asked.finetune.learning_rate.items() if name not in new}
    rates |= {name: rate for name, rate in frozen.finetune.learning_rate.items() if name in new}
    own = {each.name: getattr(frozen.method, each.name) for each in fields(frozen.method) if each.name in new}
    free = replace(
        free,
        finetune=replace(
            asked.finetune, methods=frozen.finetune.methods, seeds=frozen.finetune.seeds, learning_rate=rates
        ),
        method=replace(asked.method, **own),
    )
    for where, was, now in _differences(plain(frozen), plain(free)):
        raise StudyError(
            where,
            f"is {now!r}, but the study folder was started with {was!r}",
            "give another folder with --out, or put the setting back",
        )
    return asked


def refuse_other_spec(found: RunSpec, spec: RunSpec) -> None:
    """A run's folder is named by its settings: one that holds others must not have results added.

    Raises:
        StudyError: names the first setting that differs.
    """
    if found.spec_hash == spec.spec_hash:
        return
    differ = [each for each in _differences(plain(found), plain(spec)) if each[0] not in _FREE_OF_A_RUN]
    where, was, now = next(iter(differ), ("settings", "others", "these"))
    raise StudyError(
        f"{spec.run_id}: {where}",
        f"is {now!r}, but the run was started with {was!r}",
        "remove the run's folder to compute it anew, or give another study folder with --out",
    )


def _differences(was: Any, now: Any, where: str = "") -> list[tuple[str, Any, Any]]:
    if isinstance(was, dict) and isinstance(now, dict):
        keys = list(dict.fromkeys([*was, *now]))
        return [
            found for key in keys for found in _differences(was.get(key), now.get(key), f"{where}.{key}".lstrip("."))
        ]
    return [] if was == now else [(where, was, now)]
