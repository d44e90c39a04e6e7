"""A whole epoch of fine-tuning beside timm's recipe: `python -m tests.benchmarks.training [--model … --n …]`.

Ours is an epoch of a real run: training, the metrics of the validation and the test split, the outputs of all blocks on
the probe images, their similarity to the pre-trained model, and everything written. timm's is that of its `train.py`
(its loaders, AdamW, cosine schedule, clipping, autocast) with a validation of the same two splits. Same JPEGs, split,
model, batch, precision and kinds of augmentation; an epoch of one, then one of the other, so that another load on the
machine meets both. The last lines say where our time goes.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import save_file

from engine.activations.extract import extract
from engine.activations.store import ActivationStore
from engine.backbones.torchvision_guard import guard
from engine.finetune import ledger, measuring
from engine.finetune import run as run_module
from engine.finetune.augment import CROP_AREA, CROP_RATIO
from engine.finetune.bench import Bench
from engine.finetune.checkpoints import Checkpoints
from engine.finetune.learner import ImageLearner
from engine.finetune.reference import load_reference_backbone
from engine.finetune.run import execute_run
from engine.jobs.launch import make_study_folder
from engine.jobs.plan import PLAN_FILE, read_plan
from engine.jobs.prepare import Preparation
from engine.jobs.scheduler import queue_runs
from engine.runs.record import Session, read_record
from engine.runs.study_folder import StudyFolder
from engine.study import (
    BackboneSection,
    DataSection,
    FinetuneSection,
    MachineSection,
    ProbeSection,
    Study,
    StudySection,
    run_specs,
)
from tests.benchmarks.input import make_images

_EVALUATION = "evaluation, with the outputs of all blocks"
_SIMILARITY, _WRITING = "similarity to the pre-trained model", "writing"
# What is timed: the owner of a function, its name, the part of an epoch that it is.
_TIMED = (
    (run_module._Run, "_train", "training"),
    (ImageLearner, "observe", _EVALUATION),
    (measuring.Meter, "_similarity", _SIMILARITY),
    (measuring.Meter, "_quality", "metrics"),
    (measuring, "layer_metrics", "metrics"),
    (ledger, "write_results", _WRITING),
    (run_module._Run, "_keep", _WRITING),
    (Checkpoints, "save_resume_point", _WRITING),
)


class _Between:
    """A `Watcher` that runs an epoch of timm's before each of ours."""

    def __init__(self, other: Callable[[], int]) -> None:
        self._other = other
        self.n_trained = 0
        self.seconds: list[float] = []

    def step(self, *_: object) -> None:
        """See `Watcher`."""

    def should_stop(self) -> bool:
        """See `Watcher`."""
        started_s = time.perf_counter()
        self.n_trained = self._other()
        self.seconds.append(time.perf_counter() - started_s)
        return False


def _timed(seconds: dict[str, list[float]], owner: Any, name: str, part: str) -> Any:
    """A patch of a function, which writes down how long each call takes."""
    function = getattr(owner, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        started_s = time.perf_counter()
        found = function(*args, **kwargs)
        seconds.setdefault(part, []).append(time.perf_counter() - started_s)
        return found

    return mock.patch.object(owner, name, call)


def compare(options: argparse.Namespace, work: Path) -> None:
    """Runs and prints both."""
    folder = make_study_folder(_study(options, work), work / "study")
    preparation = Preparation(folder, reports=False)
    preparation.prepare()
    queue_runs(folder)
    bench, size = _bench(folder, preparation)
    run_path = folder.run_path(run_specs(folder.study)[0].run_id)
    between = _Between(_timm_epoch(bench, size, options))
    parts: dict[str, list[float]] = {}
    with ExitStack() as stack:
        for owner, name, part in _TIMED:
            stack.enter_context(_timed(parts, owner, name, part))
        done = execute_run(run_path, read_record(run_path), bench, between)
    _print(bench, size, options, done.epoch_seconds[1:], between)
    _print_parts(options.rounds, done.epoch_seconds[1:], parts, _bare_evaluation_s(folder, bench))


def _study(options: argparse.Namespace, work: Path) -> Study:
    guard()
    import timm

    root = make_images(work / "images", options.n)
    weights = work / "random.safetensors"
    save_file(timm.create_model(options.model, num_classes=0).state_dict(), weights)
    return Study(
        StudySection("training", keep="none"),
        DataSection(path=str(root)),
        (BackboneSection(f"timm:{options.model}", weights=str(weights), input_size=options.size),),
        probe=ProbeSection(n=options.probe),
        finetune=FinetuneSection(
            ("full",), seeds=1, epochs=options.rounds + 1, batch_size=options.batch, precision=options.precision
        ),
        machine=MachineSection(device=options.device, workers=1),
    )


def _bench(folder: StudyFolder, preparation: Preparation) -> tuple[Bench, int]:
    """As a worker makes it; and the side of the images."""
    plan = read_plan(folder.path / PLAN_FILE)
    device = torch.device(plan.devices[0])
    torch.set_num_threads(plan.threads)
    backbone = load_reference_backbone(folder.study.backbone[0], device)
    inputs = preparation.inputs(plan, backbone.info.input_size)
    session = Session(0, "here", str(device), plan.precision, plan.threads, {})
    store = ActivationStore(folder.activations_path)
    bench = Bench(device, plan.precision, inputs, preparation.reference(backbone, inputs), store, session)
    return bench, backbone.info.input_size


def _timm_epoch(bench: Bench, size: int, options: argparse.Namespace) -> Callable[[], int]:
    """What `train.py` does in an epoch; returns how many images were trained on: it drops the last, short batch."""
    import timm
    from timm.optim import create_optimizer_v2
    from timm.scheduler import CosineLRScheduler

    device, n_classes = bench.device, bench.inputs.n_classes
    other_size = {} if options.size is None else {"img_size": size}
    model = timm.create_model(options.model, num_classes=n_classes, **other_size).to(device)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-4, weight_decay=0.05)
    train, *others = (_timm_loader(bench, size, options, split) for split in ("train", "val", "test"))
    schedule = CosineLRScheduler(optimizer, t_initial=len(train) * (options.rounds + 1), t_in_epochs=False)
    loss_function = torch.nn.CrossEntropyLoss().to(device)
    n_done = 0

    def autocast() -> Any:
        return torch.autocast(device.type, torch.bfloat16) if bench.precision == "bfloat16" else nullcontext()

    def epoch() -> int:
        nonlocal n_done
        model.train()
        for images, targets in _moved(train, device):
            with autocast():
                loss = loss_function(model(images), targets)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            n_done += 1
            schedule.step_update(n_done)
        model.eval()
        with torch.inference_mode():
            for loader in others:
                correct = 0
                for images, targets in _moved(loader, device):
                    with autocast():
                        logits = model(images)
                    loss_function(logits.float(), targets)
                    correct += int((logits.argmax(1) == targets).sum())
        return len(train) * options.batch

    return epoch


def _timm_loader(bench: Bench, size: int, options: argparse.Namespace, split: str) -> Any:
    from timm.data import create_dataset, create_loader

    cache, root = bench.inputs.splits[split], bench.inputs.manifest.root
    dataset = create_dataset("", root=str(root))
    wanted = {str(Path(root) / item.path) for item in cache.items}
    dataset.reader.samples = [each for each in dataset.reader.samples if str(each[0]) in wanted]
    assert len(dataset) == len(cache.items), (split, len(dataset), len(cache.items))
    return create_loader(
        dataset, input_size=(3, size, size), batch_size=options.batch, is_training=split == "train",
        use_prefetcher=bench.device.type == "cuda", device=bench.device, scale=CROP_AREA, ratio=CROP_RATIO, hflip=0.5,
        color_jitter=None, interpolation="bilinear", num_workers=options.workers, persistent_workers=True,
        pin_memory=bench.device.type == "cuda",
    )  # fmt: skip


def _moved(loader: Any, device: torch.device) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for images, targets in loader:
        yield images.to(device, non_blocking=True), targets.to(device, non_blocking=True)


def _print(bench: Bench, size: int, options: argparse.Namespace, ours_s: Sequence[float], between: _Between) -> None:
    n_of = {split: len(cache.items) for split, cache in bench.inputs.splits.items()}
    device = torch.cuda.get_device_name(bench.device) if bench.device.type == "cuda" else "CPU"
    print(
        f"{options.model} at {size}, {device}, {bench.precision}, {torch.get_num_threads()} threads, "
        f"batches of {options.batch}, {n_of['train']:,} training, {n_of['val']:,} validation and {n_of['test']:,} test "
        f"images, {len(bench.inputs.probe_rows):,} of them compared"
    )
    per_s = []
    for name, n, seconds in (("ours", n_of["train"], ours_s), ("timm", between.n_trained, between.seconds[1:])):
        median_s = statistics.median(seconds)
        per_s.append(n / median_s)
        rounds = ", ".join(f"{each:.1f}" for each in seconds)
        print(f"  {name}: {per_s[-1]:8.1f} images/s ({n:,} trained in {median_s:.2f} s an epoch; rounds {rounds})")
    print(f"  ours / timm = {per_s[0] / per_s[1]:.3f} (limit {1.2 if bench.device.type == 'cuda' else 1.0})")


def _print_parts(rounds: int, epochs_s: Sequence[float], parts: Mapping[str, list[float]], bare_s: float) -> None:
    total_s = sum(epochs_s)
    # The last calls are those of the epochs that are shown; each part has as many calls in every epoch.
    shares = {part: sum(each[-len(each) * rounds // (rounds + 2) :]) for part, each in parts.items()}
    for part, seconds in shares.items():
        print(f"  {part}: {seconds / total_s:.1%}")
    extra_s = max(0.0, shares[_EVALUATION] - bare_s * rounds) + shares[_SIMILARITY] + shares[_WRITING]
    print(f"  read-out beyond a bare evaluation, similarity and writing: {extra_s / total_s:.1%} (limit 10.0%)")


def _bare_evaluation_s(folder: StudyFolder, bench: Bench) -> float:
    """Seconds in which both splits are seen without the outputs of blocks."""
    backbone = load_reference_backbone(folder.study.backbone[0], bench.device)
    started_s = time.perf_counter()
    for split in ("val", "test"):
        extract(backbone, bench.inputs.splits[split])
    return time.perf_counter() - started_s


def main() -> None:
    """Reads the options; everything is made in a folder of its own, and removed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_tiny_patch16_224.augreg_in21k", help="of timm, by its pre-trained name")
    parser.add_argument("--size", type=int, help="side of the images in pixels, instead of the model's own")
    parser.add_argument("--n", type=int, default=640, help="images, of which 70 %% train")
    parser.add_argument("--probe", type=int, default=2048, help="test images that are compared, at most")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="of timm's loaders")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(dir=options.work))
    try:
        compare(options, work)
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
