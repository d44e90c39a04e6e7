"""Pre-trains the bundled backbones on generated scenes and evaluates them: `python sample_runs/pretrain.py --help`.

The scenes are drawn, not photographed; nothing is downloaded. Weights go to `sample_runs/weights` by default.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from pretraining.corpus import render_corpus
from pretraining.image_text import ImageText
from pretraining.recipe import Recipe, Settings, train
from pretraining.self_supervised import SelfSupervised
from pretraining.supervised import Supervised
from safetensors.torch import save_file
from torch import Tensor, nn

from engine.backbones import initialise, load_backbone
from engine.backbones.bundled import BUNDLED, INPUT_SIZE
from engine.data.pixels import pixel_cache
from engine.data.read import read_dataset
from engine.data.synthetic.scenes import generate
from engine.quality import knn_accuracy

WEIGHTS_FOLDER = Path(__file__).parent / "weights"
RECIPES: Mapping[str, tuple[Callable[[Settings], Recipe], Settings, str]] = {
    "supervised": (Supervised, Settings(2000, 64, 1e-3), "cross-entropy over 24 classes, label smoothing 0.1"),
    "image-text": (ImageText, Settings(1000, 128, 1e-3), "CLIP's contrastive loss over generated captions"),
    "self-supervised": (
        SelfSupervised,
        Settings(1500, 64, 1e-3, warmup=0.05),
        "DINO with KoLeo, 2 global and 4 local crops",
    ),
}
EVALUATION_SEED = 999  # of the generated dataset that `evaluate` measures on


def pretrain(name: str, settings: Settings, *, n_images: int, corpus_folder: Path, out: Path) -> Path:
    """Trains one backbone and writes its weights, float16; progress goes to standard error."""
    torch.manual_seed(settings.seed)
    corpus = render_corpus(corpus_folder, n_images, settings.seed, 2, partial(_show, f"{name}: images"))
    make, _, words = RECIPES[name]
    recipe = make(settings)

    def report(step: int, loss: float, elapsed_s: float) -> None:
        if step % 20 == 0 or step == settings.n_steps:
            left_s = elapsed_s / step * (settings.n_steps - step)
            print(f"{name}: step {step}/{settings.n_steps} loss {loss:.3f}, {left_s:.0f} s left", file=sys.stderr)

    train(recipe, corpus, report)
    path = out / BUNDLED[name].weights_file
    save_weights(path, recipe.backbone, {"paradigm": name, "recipe": words, "seed": str(settings.seed)})
    return path


def save_weights(path: Path, backbone: nn.Module, facts: Mapping[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {key: value.detach().to(torch.float16).contiguous() for key, value in backbone.state_dict().items()}
    save_file(state, path, metadata={**facts, "synthetic": "true"})


def evaluation_images(n: int) -> tuple[Tensor, Tensor]:
    """`n` scenes that no pre-training saw, read from files: `(n, 3, 64, 64)` float32 in [-1, 1] and labels `(n,)`."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder) / "scenes", n, EVALUATION_SEED)
        manifest = read_dataset(Path(folder) / "scenes")
        cache = pixel_cache(manifest.root, manifest.items, INPUT_SIZE, Path(folder) / "pixels")
        pixels = torch.from_numpy(np.array(cache.pixels))
    edge = (pixels.shape[1] - INPUT_SIZE) // 2
    cropped = pixels[:, edge : edge + INPUT_SIZE, edge : edge + INPUT_SIZE].permute(0, 3, 1, 2)
    return cropped.float() / 127.5 - 1, torch.tensor([item.label for item in cache.items])


@torch.no_grad()
def origin_knn(backbone: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Leave-one-out k-NN accuracy (k = 20, temperature 0.07) of the embeddings `backbone(images)`."""
    x = torch.cat([backbone(part) for part in images.split(200)]).double()
    return knn_accuracy(x, labels, x, labels, leave_one_out=True)


def evaluate(folder: Path, n: int) -> None:
    """Prints origin k-NN of each at random initialisation (mean and range of three seeds) and pre-trained."""
    images, labels = evaluation_images(n)
    print(f"{'origin k-NN, %':<26} {'random initialisation':>24} {'pre-trained':>12}")
    for name, spec in BUNDLED.items():
        if not (folder / spec.weights_file).exists():
            print(f"bundled:{name:<18} not pre-trained yet")
            continue
        backbone = load_backbone(f"bundled:{name}", weights=folder / spec.weights_file)
        trained = origin_knn(backbone, images, labels)
        random = []
        for seed in range(3):
            initialise(backbone, seed)
            random.append(100 * origin_knn(backbone, images, labels))
        seen = f"{np.mean(random):.1f} ({min(random):.1f} to {max(random):.1f})"
        print(f"bundled:{name:<18} {seen:>24} {100 * trained:12.1f}")


def _show(what: str, done: int, total: int) -> None:
    print(f"\r{what} {done}/{total}", end="\n" if done == total else "", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=[*RECIPES, "all", "evaluate"])
    parser.add_argument("--out", type=Path, default=WEIGHTS_FOLDER, help="folder of the weights")
    parser.add_argument("--steps", type=int, help="training steps (default: the recipe's own)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=24_000, help="images to pre-train on")
    parser.add_argument("--evaluate-on", type=int, default=2000, metavar="N", help="images of `evaluate`")
    parser.add_argument("--corpus", type=Path, default=Path(tempfile.gettempdir()) / "simtui-pretraining")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    if chosen.what == "evaluate":
        evaluate(chosen.out, chosen.evaluate_on)
        return
    for name in RECIPES if chosen.what == "all" else [chosen.what]:
        settings = replace(RECIPES[name][1], seed=chosen.seed)
        if chosen.steps is not None:
            settings = replace(settings, n_steps=chosen.steps)
        path = pretrain(name, settings, n_images=chosen.images, corpus_folder=chosen.corpus, out=chosen.out)
        print(path)


if __name__ == "__main__":
    main()
