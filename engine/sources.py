"""What an exported table was made from: digests of every file behind it, beside it in a file of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import engine
from engine.analysis.names import TABLE_USES
from engine.analysis.options import TableOptions
from engine.analysis.table import Table
from engine.files import atomic_write, sha256_file
from engine.runs.record import RunRecord
from engine.runs.results import RESULTS_FILE
from engine.runs.study_folder import StudyFolder


def sources_path(path: Path) -> Path:
    """Where the sources of an exported file lie."""
    return path.with_name(f"{path.name}.sources.json")


def write_sources(path: Path, folder: StudyFolder, table: Table, options: TableOptions) -> Path:
    """Writes what a table was made from beside its file at `path`; returns where.

    Raises:
        MachineError: it cannot be written.
    """
    to = sources_path(path)
    content = json.dumps(sources_of(folder, table, options) | {"file": path.name}, indent=2, ensure_ascii=True)
    atomic_write(to, f"{content}\n".encode())
    return to


def sources_of(folder: StudyFolder, table: Table, options: TableOptions) -> dict[str, Any]:
    """The table's name, columns, notes and options, and the digests of all runs that may have a part in it."""
    records = folder.listing().records
    naming = [name for name in ("run", "pinned_run") if name in table.columns]
    named = {str(cell) for name in naming for cell in table.column(name)} if naming else None
    if options.run is not None and named is None:
        named = {record.run_id for record in records if options.run in record.run_id}
    return {
        "table": table.name,
        "columns": list(table.columns),
        "n_rows": len(table.rows),
        "notes": list(table.notes),
        "options": {name: getattr(options, name) for name in TABLE_USES[table.name]},
        **_image(options),
        "simtui": engine.__version__,
        "exported_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "study": {"path": str(folder.path.resolve()), "study.toml_sha256": _sha256(folder.study_file_path)},
        "runs": _runs(folder, [each for each in records if named is None or each.run_id in named]),
    }


def _image(options: TableOptions) -> dict[str, str | None]:
    """The digest of an image that is a file of its own."""
    if options.image is None or not Path(options.image).is_file():
        return {}
    return {"image_sha256": _sha256(Path(options.image))}


def _runs(folder: StudyFolder, records: Sequence[RunRecord]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for record in records:
        provenance = record.provenance
        # The digests of a run that is done stand in its record; `simtui verify` holds the files against them.
        results = {RESULTS_FILE: _sha256(folder.run_path(record.run_id) / RESULTS_FILE)}
        files: Mapping[str, str | None] = record.files or results
        found[record.run_id] = {
            "state": str(record.state),
            "epochs_done": record.epochs_done,
            "files_sha256": files,
            "weights_sha256": provenance.weights_sha256,
            "weights_source": provenance.weights_source,
            "images_digest": provenance.manifest_digest,
            "probe_digest": provenance.probe_digest,
            "origin_digest": provenance.origin_digest,
        }
        if record.reference:
            found[record.run_id] |= {
                "checkpoint": provenance.weights_checkpoint,
                "reference": asdict(record.reference),
                "images": provenance.dataset_path,
            }
    return found


def _sha256(path: Path) -> str | None:
    try:
        return sha256_file(path)
    except OSError:
        return None
