"""What whoever reads a table must know of runs that are of imported checkpoints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from engine.runs.record import RunRecord


def import_notes(records: Sequence[RunRecord]) -> tuple[str, ...]:
    """How their epochs and their accuracy are to be taken; nothing where there are none."""
    imported = [record for record in records if record.is_imported]
    if not imported:
        return ()
    heads = Counter(head_said(record) for record in imported if record.checkpoints)
    return (
        "imported: epoch 0 is the pre-trained model, which has no head for these classes, unless the training has a "
        "checkpoint of it; epochs without a checkpoint are empty",
        *(f"imported, accuracy of {n} of {len(imported)} runs: {said}" for said, n in heads.items()),
    )


def head_said(record: RunRecord) -> str:
    """How the head of the last checkpoint was taken, or why there is no accuracy; empty where none is measured."""
    last = max(record.checkpoints, key=int, default=None)
    return "" if last is None else record.checkpoints[last].head
