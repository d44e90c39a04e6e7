"""Similarity at speed, beside its peers in one run on the same arrays: `python -m tests.benchmarks.measures`.

Peers are the extra `peers`; those that are not installed are left out. Memory is what a call adds at its peak.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import re
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from engine.measures import (
    MEASURES,
    CkaAccumulator,
    Comparison,
    bootstrap_interval,
    heatmap,
    permutation_null,
)
from engine.measures.minibatch import batches_of

N_LAYERS, D = 12, 768
Layers = list[Tensor]


# --- measuring ------------------------------------------------------------------------------------------------------


def best_s(work: Callable[[], object], repeats: int) -> float:
    """Shortest of several runs, after one to warm up: what the machine does when nothing else disturbs it."""
    if repeats > 1:
        work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def peak_flops(size: int = 4096) -> float:
    """Operations a second of a large float32 product, the ceiling in this run."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    return 2 * size**3 / best_s(lambda: torch.mm(a, b), 3)


def added_gb(work: Callable[[], object]) -> float:
    """Memory that a call adds at its peak, in GB (Linux)."""
    status = Path("/proc/self/status")

    def now(what: str) -> float:
        return int(re.search(rf"{what}:\s+(\d+)", status.read_text())[1]) / 1e6  # type: ignore[index]

    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = now("VmRSS")
    work()
    return now("VmHWM") - before


def related_layers(n: int, seed: int, level: float = 100) -> Layers:
    """Layers that share a signal which fades with depth, one channel of each far from zero, as in a ViT's stream."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(n, D, generator=torch.Generator().manual_seed(0))
    layers = [shared / (1 + depth) + torch.randn(n, D, generator=generator) / 2 for depth in range(N_LAYERS)]
    for layer in layers:
        layer[:, 0] += level
    return layers


# --- the truth, in float64 ------------------------------------------------------------------------------------------


def float64_cka(xs: Layers, ys: Layers, debiased: bool) -> Tensor:
    """The definition in float64 by products of features, which need no n² memory; nothing shared with the engine."""
    lefts, rights = ([x.double() - x.double().mean(dim=0) for x in side] for side in (xs, ys))
    n = len(xs[0])

    def hsic(x: Tensor, y: Tensor) -> float:
        q, r = x.square().sum(dim=1), y.square().sum(dim=1)
        value = (x.T @ y).square().sum()
        if debiased:
            value += q.sum() * r.sum() / ((n - 1) * (n - 2)) - n / (n - 2) * (q @ r)
        return float(value)

    own_x, own_y = ([hsic(x, x) for x in side] for side in (lefts, rights))
    return torch.tensor(
        [[hsic(x, y) / (a * b) ** 0.5 for y, b in zip(rights, own_y, strict=True)]
         for x, a in zip(lefts, own_x, strict=True)], dtype=torch.float64,
    )  # fmt: skip


def float64_minibatch_cka(xs: Layers, ys: Layers, batches: Iterable[Tensor]) -> Tensor:
    """Unbiased HSICs of every batch, summed, in float64."""
    total = torch.zeros(2 * N_LAYERS, 2 * N_LAYERS, dtype=torch.float64)
    for rows in batches:
        grams = []
        for layer in (*xs, *ys):
            x = layer[rows].double() - layer[rows].double().mean(dim=0)
            k = (x @ x.T).fill_diagonal_(0)
            n, sums = len(k), k.sum(dim=0)
            k += sums.sum() / ((n - 1) * (n - 2)) - (sums[:, None] + sums[None, :]) / (n - 2)
            grams.append(k.fill_diagonal_(0).flatten())
        stacked = torch.stack(grams)
        total += stacked @ stacked.T / (n * (n - 3))
    own = total.diagonal().sqrt()
    return (total / torch.outer(own, own))[:N_LAYERS, N_LAYERS:]


# --- peers ----------------------------------------------------------------------------------------------------------


class Replay(nn.Module):
    """A model whose layers hand out stored features of the images that they are asked for."""

    def __init__(self, layers: Layers) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Stored(layer) for layer in layers)

    def forward(self, rows: Tensor) -> Tensor:
        for layer in self.layers:
            layer(rows)
        return rows


class Stored(nn.Module):
    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.values = values

    def forward(self, rows: Tensor) -> Tensor:
        return self.values[rows]


def pytorch_cka(xs: Layers, ys: Layers) -> Tensor:
    from cka import cka_from_features

    return cka_from_features(xs, ys)


def pytorch_cka_minibatch(xs: Layers, ys: Layers, batches: Iterable[Tensor]) -> Tensor:
    from cka import compute_cka

    names = [f"layers.{i}" for i in range(N_LAYERS)]
    images = torch.utils.data.TensorDataset(torch.arange(len(xs[0])))
    loader = torch.utils.data.DataLoader(images, batch_sampler=[rows.tolist() for rows in batches])
    return compute_cka(Replay(xs), Replay(ys), loader, layers=names, device="cpu", progress=False)[0]


def torch_cka(xs: Layers, ys: Layers) -> Tensor:
    from torch_cka import CKA

    names = [f"layers.{i}" for i in range(N_LAYERS)]
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        both = CKA(Replay(xs), Replay(ys), "a", "b", names, names)
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.arange(len(xs[0]))), len(xs[0]))
        with torch.no_grad():
            both.compare(loader, loader)
    return both.hsic_matrix


def ckatorch(xs: Layers, ys: Layers) -> Tensor:
    from ckatorch.core import cka_base

    return torch.stack([torch.stack([cka_base(x, y, unbiased=True) for y in ys]) for x in xs])


def repsim(xs: Layers, ys: Layers) -> Tensor:
    import repsim

    found = repsim.cka([layer.numpy() for layer in (*xs, *ys)], "linear", "song")
    return torch.from_numpy(found)[:N_LAYERS, N_LAYERS:]


# name, module whose presence is asked for, function, whether it takes minutes
PEERS = (
    ("pytorch-cka", "cka", pytorch_cka, False),
    ("torch_cka", "torch_cka", torch_cka, True),
    ("ckatorch", "ckatorch", ckatorch, True),
    ("repsim (song)", "repsim", repsim, True),
)


# --- the figures ----------------------------------------------------------------------------------------------------


def line(what: str, taken_s: float, gb: float | None = None, found: Sequence[float] = (), note: str = "") -> None:
    memory = f"{gb:7.2f} GB" if gb is not None else ""
    print(f"{what:34} {taken_s:8.2f} s {memory:10}  {'  '.join(f'{each:.0e}' for each in found):16} {note}", flush=True)


def debiased(n: int, repeats: int, with_slow: bool) -> None:
    """The 12 × 12 heatmap of debiased CKA: time and memory, and the error without and with a channel at 100."""
    xs, ys = related_layers(n, seed=1, level=0), related_layers(n, seed=2, level=0)
    inputs = [(xs, ys), (related_layers(n, seed=1), related_layers(n, seed=2))]
    truths = [float64_cka(*pair, debiased=True) for pair in inputs]
    print(f"\ndebiased CKA, {N_LAYERS} x {N_LAYERS} layers, n = {n}, d = {D}; error: benign, one channel at 100")
    peak = peak_flops()

    def ours(xs: Layers, ys: Layers) -> Tensor:
        return heatmap(xs, ys, "debiased_cka")

    ours_s = best_s(lambda: ours(xs, ys), repeats)
    share = (2 * N_LAYERS * n**2 * D + 168 * n**2) / ours_s / peak
    found = [errors(ours, *case) for case in zip(inputs, truths, strict=True)]
    note = f"{share:.0%} of the GEMM peak, {peak / 1e9:.0f} GFLOP/s"
    line("simtui", ours_s, added_gb(lambda: ours(xs, ys)), found, note)
    for name, module, function, is_slow in PEERS:
        if importlib.util.find_spec(module) is None or (is_slow and not with_slow):
            continue
        results: list[Tensor] = []
        start = time.perf_counter()
        gb = added_gb(lambda function=function, results=results: results.append(function(xs, ys)))  # type: ignore[misc]
        taken_s = time.perf_counter() - start
        if not is_slow:
            taken_s = best_s(lambda function=function: function(xs, ys), repeats)  # type: ignore[misc]
        found = [float((results[0] - truths[0]).abs().max()), errors(function, inputs[1], truths[1])]
        line(name, taken_s, gb, found, f"{taken_s / ours_s:.2f} x ours")


def errors(function: Callable[[Layers, Layers], Tensor], pair: tuple[Layers, Layers], truth: Tensor) -> float:
    """The largest error of a heatmap; NaN where the function fails on this input."""
    try:
        return float((function(*pair) - truth).abs().max())
    except (AssertionError, RuntimeError, ValueError):
        return float("nan")


def minibatch(n: int, repeats: int) -> None:
    """Minibatch CKA on the same batches."""
    xs, ys = related_layers(n, seed=1), related_layers(n, seed=2)
    batches = batches_of(n, 256, seed=0)
    truth = float64_minibatch_cka(xs, ys, batches)
    print(f"\nminibatch CKA, {len(batches)} batches of up to 256, n = {n}")
    ours_s = best_s(lambda: heatmap(xs, ys, "minibatch_cka"), repeats)
    error = float((heatmap(xs, ys, "minibatch_cka") - truth).abs().max())
    line("simtui", ours_s, added_gb(lambda: heatmap(xs, ys, "minibatch_cka")), [error])
    if importlib.util.find_spec("cka") is not None:
        theirs_s = best_s(lambda: pytorch_cka_minibatch(xs, ys, batches), repeats)
        error = float((pytorch_cka_minibatch(xs, ys, batches) - truth).abs().max())
        gb = added_gb(lambda: pytorch_cka_minibatch(xs, ys, batches))
        line("pytorch-cka", theirs_s, gb, [error], f"{theirs_s / ours_s:.2f} x ours")


def epochs(n: int, n_epochs: int, repeats: int) -> None:
    """Many epochs against one reference, prepared once or every time."""
    xs, ys = related_layers(n, seed=1), related_layers(n, seed=2)
    print(f"\n{n_epochs} epochs against one reference, both estimators, n = {n}")

    def together() -> None:
        comparison = Comparison(xs, ["linear_cka", "debiased_cka"])
        for _ in range(n_epochs):
            comparison.heatmaps(ys)

    def apart() -> None:
        for _ in range(n_epochs):
            heatmap(xs, ys, "debiased_cka")

    apart_s, together_s = best_s(apart, repeats), best_s(together, repeats)
    line(f"{n_epochs} heatmaps", apart_s, added_gb(apart))
    line("one Comparison", together_s, added_gb(together), note=f"{together_s / apart_s:.0%}")


def every_measure(n: int) -> None:
    """One heatmap of each, in float32."""
    xs, ys = related_layers(n, seed=1), related_layers(n, seed=2)
    print(f"\neach measure, {N_LAYERS} x {N_LAYERS} layers, n = {n}")
    for name in MEASURES:

        def work(name: str = name) -> None:
            heatmap(xs, ys, name)

        line(name, best_s(work, 1), added_gb(work))


def uncertainty(n: int, n_resamples: int) -> None:
    """The bootstrap of a whole heatmap, and its null."""
    xs, ys = related_layers(n, seed=1), related_layers(n, seed=2)
    print(f"\nthe whole heatmap, n = {n}")
    for name in ("debiased_cka", "linear_cka", "mutual_knn"):

        def work(name: str = name) -> None:
            bootstrap_interval(xs, ys, name, n_resamples=n_resamples)

        line(f"{n_resamples} resamples, {name}", best_s(work, 1), added_gb(work))
    for name in ("debiased_cka", "linear_cka"):
        line(f"exact null, {name}", best_s(lambda name=name: permutation_null(xs, ys, name), 1))  # type: ignore[misc]


def accumulator(n: int) -> None:
    """All images in batches of 512, never held together."""
    xs, ys = related_layers(n, seed=1), related_layers(n, seed=2)
    truth = float64_cka(xs, ys, debiased=True)
    found = CkaAccumulator()

    def work() -> None:
        for start in range(0, n, 512):
            found.update([x[start : start + 512] for x in xs], [y[start : start + 512] for y in ys])

    print(f"\naccumulated from batches of 512, n = {n}")
    gb = added_gb(work)
    error = float((found.result()["debiased_cka"] - truth).abs().max())
    found = CkaAccumulator()
    line("CkaAccumulator, both estimators", best_s(work, 1), gb, [error])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = ["debiased", "large", "minibatch", "epochs", "each", "uncertainty", "accumulator"]
    parser.add_argument("what", nargs="*", default=what, help=f"any of {' '.join(what)}; all by default")
    parser.add_argument("--n", type=int, default=2048, help="images")
    parser.add_argument("--large-n", type=int, default=10_000, help="images of large, minibatch and accumulator")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--fast-peers", action="store_true", help="leave out the peers that take minutes")
    chosen = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    figures: dict[str, Callable[[], None]] = {
        "debiased": lambda: debiased(chosen.n, chosen.repeats, not chosen.fast_peers),
        "large": lambda: debiased(chosen.large_n, 1, with_slow=False),
        "minibatch": lambda: minibatch(chosen.large_n, chosen.repeats),
        "epochs": lambda: epochs(chosen.n, 21, 1),
        "each": lambda: every_measure(chosen.n),
        "uncertainty": lambda: uncertainty(chosen.n, 1000),
        "accumulator": lambda: accumulator(chosen.large_n),
    }
    for name in chosen.what:
        figures[name]()


if __name__ == "__main__":
    main()
