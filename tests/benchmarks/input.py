"""What input costs: reading a dataset, an epoch of batches beside timm's Pillow pipeline, and the wait for images.

python -m tests.benchmarks.input read          # 10,000 JPEGs of 600 × 450, the first and the second time
python -m tests.benchmarks.input throughput    # an epoch of augmented batches, beside timm's loader
python -m tests.benchmarks.input waiting       # the share of a training epoch spent waiting for images
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from engine.backbones.torchvision_guard import guard
from engine.data.manifest import SPLITS
from engine.data.pixels import PixelCache, pixel_cache
from engine.data.prefetch import Prefetched
from engine.data.read import read_dataset
from engine.finetune.augment import Augmentation, augmented
from engine.finetune.objective import Objective
from engine.finetune.optimiser import Depths
from engine.finetune.recipes.recipe import Recipe
from engine.finetune.trainer import Trainer
from engine.study import BackboneSection, DataSection, FinetuneSection, Study, StudySection, run_specs

SIZE, BATCH = 224, 64
MEAN = STD = (0.5, 0.5, 0.5)


def _draw(task: tuple[Path, int]) -> None:
    path, seed = task
    drawn = np.random.default_rng(seed)
    coarse = Image.fromarray(drawn.integers(0, 256, (15, 20, 3), dtype=np.uint8)).resize((600, 450), 3)
    grain = drawn.integers(-12, 13, (450, 600, 1))
    Image.fromarray(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8)).save(path, quality=90)


def make_images(root: Path, n: int) -> Path:
    """A folder a class of `n` JPEGs, each with other content."""
    tasks = []
    for number in range(n):
        folder = root / f"class {number % 5}"
        folder.mkdir(parents=True, exist_ok=True)
        tasks.append((folder / f"{number:05d}.jpg", number))
    with ProcessPoolExecutor() as pool:
        list(pool.map(_draw, tasks, chunksize=64))
    return root


def read(n: int, work: Path) -> None:
    """Seconds to list, hash, split and decode a dataset, twice."""
    root = make_images(work / "images", n)
    n_bytes = sum(path.stat().st_size for path in root.rglob("*.jpg"))
    print(f"{n:,} JPEGs of 600 × 450, {n_bytes / 1e9:.2f} GB")
    for name in ("first", "second"):
        started_s = time.perf_counter()
        manifest = read_dataset(root)
        listed_s = time.perf_counter() - started_s
        for split in SPLITS:
            pixel_cache(root, manifest.of_split(split), SIZE, work / "cache")
        total_s = time.perf_counter() - started_s
        print(f"  {name} time: {total_s:6.2f} s ({listed_s:.2f} s to list, hash and split)")


def throughput(n: int, work: Path, rounds: int) -> None:
    """Milliseconds an image of a whole epoch of augmented, normalised batches; the median of the rounds, taken in turn.

    Both resize random crops (50 to 100 % of the area) to 224 pixels, bilinear, flip them left to right, and normalise.
    """
    root = make_images(work / "images", n)
    cache = pixel_cache(root, read_dataset(root).items, SIZE, work / "cache")
    ours, timms = _our_epoch(cache), _timm_epoch(root)
    times: dict[str, list[float]] = {"ours": [], "timm": []}
    for _ in range(rounds + 1):
        for name, epoch in (("ours", ours), ("timm", timms)):
            started_s = time.perf_counter()
            seen = epoch()
            assert seen == n, (name, seen)
            times[name].append(1e3 * (time.perf_counter() - started_s) / n)
    found = {name: float(np.median(each[1:])) for name, each in times.items()}  # the first round warms up
    print(f"{n:,} JPEGs of 600 × 450, batches of {BATCH}, {torch.get_num_threads()} threads, from the second epoch on")
    for name, value in found.items():
        print(
            f"  {name}: {value:5.2f} ms an image ({1e3 / value:6.0f} images/s), rounds {np.round(times[name][1:], 2)}"
        )
    print(f"  ours / timm = {found['ours'] / found['timm']:.3f} (limit 0.333)")


class _Batches:
    def __init__(self, cache: PixelCache, size: int = SIZE) -> None:
        self._pixels, self._augmentation = cache.pixels, Augmentation(size)

    def gather(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(self._pixels[rows])

    def prepare(self, gathered: Tensor, generator: torch.Generator) -> Tensor:
        return augmented(gathered, self._augmentation, generator).sub_(0.5).div_(0.5)


def _our_epoch(cache: PixelCache) -> Callable[[], int]:
    batches = _Batches(cache)
    generator = torch.Generator().manual_seed(0)

    def epoch() -> int:
        order = torch.randperm(len(cache.items), generator=generator).numpy()
        parts = [np.sort(order[start : start + BATCH]) for start in range(0, len(order), BATCH)]
        return sum(len(batches.prepare(each, generator)) for each in Prefetched(batches.gather, parts))

    return epoch


def _timm_epoch(root: Path) -> Callable[[], int]:
    guard()
    from timm.data import create_dataset, create_loader

    loader = create_loader(
        create_dataset("", root=str(root)), input_size=(3, SIZE, SIZE), batch_size=BATCH, is_training=True,
        use_prefetcher=False, scale=(0.5, 1.0), ratio=(3 / 4, 4 / 3), hflip=0.5, color_jitter=None,
        interpolation="bilinear", mean=MEAN, std=STD, num_workers=2, persistent_workers=True,
    )  # fmt: skip

    def epoch() -> int:
        # timm drops the last, short batch in training: it is counted as if it had been loaded.
        seen = sum(len(images) for images, _ in loader)
        return seen + len(loader.dataset) % BATCH

    return epoch


def waiting(n: int, work: Path) -> None:
    """How long training waits for images in its second epoch, of a small and of a very small vision transformer."""
    guard()
    import timm

    root = make_images(work / "images", n)
    manifest = read_dataset(root)
    for name, size, model in (
        ("ViT-S/16 at 224", 224, timm.create_model("vit_small_patch16_224", num_classes=5)),
        ("ViT, 1.2 M parameters, at 64", 64, timm.models.VisionTransformer(
            img_size=64, patch_size=8, embed_dim=128, depth=6, num_heads=2, num_classes=5)),
    ):  # fmt: skip
        cache = pixel_cache(root, manifest.items, size, work / "cache")
        labels = np.array([item.label for item in cache.items])
        study = Study(
            StudySection("x"), DataSection(path=""), (BackboneSection(name),), finetune=FinetuneSection(epochs=2)
        )
        objective = Objective("single", labels, 5, class_weights="none", sampling="shuffle")
        spec = run_specs(study)[0]
        trainer = Trainer(
            spec, Recipe(spec, nn.Sequential(model)), objective, _Batches(cache, size),
            depths=Depths(12), precision="float32",
        )  # fmt: skip
        for epoch in (1, 2):
            waited, started_s = [0.0], time.perf_counter()
            trainer.train_epoch(epoch, lambda *report, to=waited: to.append(report[-1]))
            seconds = time.perf_counter() - started_s
            share, speed = waited[-1] / seconds, len(labels) / seconds
            print(f"  {name}, epoch {epoch}: {speed:5.1f} images/s, {share:.2%} of {seconds:.1f} s waiting for images")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["read", "throughput", "waiting"])
    parser.add_argument("--n", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(dir=options.work))
    try:
        if options.part == "read":
            read(options.n or 10_000, work)
        elif options.part == "throughput":
            throughput(options.n or 2_000, work, options.rounds)
        else:
            waiting(options.n or 256, work)
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
