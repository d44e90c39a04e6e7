"""Time, error and share of the machine's peak of the 12 x 12 heatmap: `python -m tests.benchmarks.measures`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from engine.measures import MEASURES, heatmap

N_LAYERS, D = 12, 768


def best_s(work: Callable[[], object], repeats: int) -> float:
    """Shortest of several runs, after one to warm up: what the machine does when nothing else disturbs it."""
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


def related_layers(n: int, seed: int) -> list[Tensor]:
    """Layers that share a signal which fades with depth, one channel of each far from zero, as in a ViT's stream."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(n, D, generator=torch.Generator().manual_seed(0))
    layers = [shared / (1 + depth) + torch.randn(n, D, generator=generator) / 2 for depth in range(N_LAYERS)]
    for layer in layers:
        layer[:, 0] += 100
    return layers


def float64_cka(xs: list[Tensor], ys: list[Tensor], debiased: bool) -> Tensor:
    """The plain definition in float64, by whole Gram matrices: slow, and nothing shared with the engine."""

    def gram(x: Tensor) -> Tensor:
        x = x.double() - x.double().mean(dim=0)
        k = x @ x.T
        n = len(k)
        if debiased:
            k.fill_diagonal_(0)
            rows = k.sum(dim=0)
            k += rows.sum() / ((n - 1) * (n - 2)) - (rows[:, None] + rows[None, :]) / (n - 2)
            k.fill_diagonal_(0)
        return k / torch.linalg.matrix_norm(k)

    lefts = [gram(x) for x in xs]
    return torch.stack([torch.stack([(left * right).sum() for left in lefts]) for right in map(gram, ys)], dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=2048, help="images")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    n = arguments.n
    xs, ys = related_layers(n, seed=1), related_layers(n, seed=2)
    n_operations = 2 * N_LAYERS * n**2 * D + 168 * n**2
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {N_LAYERS} x {N_LAYERS} layers, n={n}, d={D}")
    print("measure        time s   error      share of the GEMM peak")
    for name in MEASURES:
        peak = peak_flops()  # beside each figure, since shared machines drift
        taken_s = best_s(lambda name=name: heatmap(xs, ys, name), arguments.repeats)  # type: ignore[misc]
        error = (heatmap(xs, ys, name) - float64_cka(xs, ys, name == "debiased_cka")).abs().max().item()
        share = n_operations / taken_s / peak
        print(f"{name:14} {taken_s:6.2f}   {error:.1e}    {share:.0%} of {peak / 1e9:.0f} GFLOP/s")


if __name__ == "__main__":
    main()
