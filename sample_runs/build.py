"""Builds the sample study that ships with simtui: makes its images, runs it, and keeps only what looking at it needs.

python sample_runs/build.py --work /tmp/sample        # two hours on two cores; continues if interrupted
python sample_runs/build.py --work /tmp/methods --study methods_study.toml        # another study of these images
"""

from __future__ import annotations

import argparse
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from engine.data.synthetic import dermoscopy, scenes
from engine.errors import SimtuiError
from engine.files import atomic_write
from engine.jobs.launch import make_study_folder, start_study
from engine.runs.attention_maps import ATTENTION_FILE
from engine.runs.record import State, write_record
from engine.runs.study_folder import StudyFolder
from engine.study import load_study, run_specs
from simtui.follow import follow

HERE = Path(__file__).resolve().parent
_SAMPLE = "sample_study.toml"
N_TARGET, TARGET_SEED = 480, 0
N_ORIGIN, ORIGIN_SEED = 720, 0
KEPT = ("history.csv", "results.h5")
N_SEEDS_WITH_MAPS = 2  # of each backbone and method: the study is to stay below 20 MB


def build(work_path: Path, study_name: str) -> StudyFolder:
    """Makes the images where they are missing and runs the study to its end; exits where it fails."""
    request_path = work_path / "study.toml"
    work_path.mkdir(parents=True, exist_ok=True)
    atomic_write(request_path, (HERE / study_name).read_bytes())
    study = load_study(request_path)
    assert study.origin is not None
    for path, generate, n, seed in (
        (Path(study.data.path), dermoscopy.generate, N_TARGET, TARGET_SEED),
        (Path(study.origin.path), scenes.generate, N_ORIGIN, ORIGIN_SEED),
    ):
        if not (path / "synthetic.json").exists():
            generate(path, n, seed)
    folder = make_study_folder(study, work_path / "study")
    exit_code = follow(folder, start_study(folder))
    if exit_code:
        sys.exit(exit_code)
    return folder


def publish(folder: StudyFolder, target_path: Path) -> int:
    """Copies what the app reads, and the request as it was asked; returns the size in bytes.

    Activations, checkpoints and, beyond the first seeds, attention maps stay behind, and the records forget them; so
    they do where the study lay and on which machine.
    """
    wanted = [spec.run_id for spec in run_specs(load_study(HERE / _SAMPLE))]
    left = [run_id for run_id in wanted if folder.record(run_id).state is not State.DONE]
    if left:
        sys.exit(f"{len(left)} runs are not done: nothing is published")
    shutil.rmtree(target_path, ignore_errors=True)
    (target_path / "activations").mkdir(parents=True)
    for run_id in wanted:
        _publish_run(folder, run_id, target_path)
    shutil.copy(HERE / _SAMPLE, target_path / "study.toml")
    return sum(path.stat().st_size for path in target_path.rglob("*") if path.is_file())


def _publish_run(folder: StudyFolder, run_id: str, target_path: Path) -> None:
    record = folder.record(run_id)
    run_path = target_path / "runs" / run_id
    run_path.mkdir(parents=True)
    has_maps = record.spec.seed < N_SEEDS_WITH_MAPS
    kept = [name for name in record.files if name in KEPT or (has_maps and name == ATTENTION_FILE)]
    for name in kept:
        shutil.copy(folder.run_path(run_id) / name, run_path / name)
    key = record.provenance.attention_reference
    shutil.copy(folder.activations_path / f"{key}.h5", target_path / "activations" / f"{key}.h5")
    provenance = replace(
        record.provenance,
        dataset_path="images/synthetic_dermoscopy",
        origin_path="images/synthetic_scenes",
        command="python sample_runs/build.py --work FOLDER",
    )
    write_record(
        run_path,
        record.with_(
            files={name: record.files[name] for name in kept},
            activations={key: "reference"},
            sessions=tuple(replace(each, host="") for each in record.sessions),
            provenance=provenance,
        ),
    )


def main() -> None:
    """Builds and publishes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for images, activations and checkpoints")
    parser.add_argument("--study", choices=[_SAMPLE, "methods_study.toml"], default=_SAMPLE, help="which to run")
    options = parser.parse_args()
    try:
        folder = build(options.work, options.study)
        if options.study != _SAMPLE:
            print(folder.path)
            return
        size = publish(folder, HERE / "sample_study")
    except SimtuiError as error:
        sys.exit(str(error))
    print(f"sample_runs/sample_study: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
