"""Other terminal apps that show results, driven as ours is and in the same run: what each is, and what stands for what.

They are no dependencies: `--peers-python` names the Python of an environment with `pip install wandb harlequin h5tui`
(the extra `peers-app`); one that is not there is left out, and said to be.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# What each of them reads: 21 epochs of 14 metrics in 3 runs; a table of 2,000 rows; a 48 × 48 map.
_MADE = {
    "wandb": """
import math, sys, wandb
for n in range(3):
    settings = wandb.Settings(console="off", silent=True, x_disable_stats=True)
    run = wandb.init(project="benchmark", mode="offline", dir=sys.argv[1], settings=settings)
    for epoch in range(21):
        run.log({f"layer {i}": math.exp(-epoch / (3 + i)) for i in range(12)} | {"accuracy": epoch / 25, "ece": 0.1})
    run.finish()
""",
    "harlequin": """
import duckdb, sys
with duckdb.connect(sys.argv[1] + "/runs.duckdb") as database:
    database.execute("create table runs as select i as run, 'full' as method, i % 20 as seed, random() as accuracy, "
                     "random() as cka, random() as ece, 'done' as state from range(2000) t(i)")
""",
    "h5tui": """
import h5py, numpy, sys
with h5py.File(sys.argv[1] + "/map.h5", "w") as file:
    file["map"] = numpy.random.default_rng(0).random((48, 48))
""",
}


@dataclass(frozen=True)
class Peer:
    """A peer and how it is driven: to where it is like us, then by `steps`, once each.

    Args:
        arguments: after the program's name; `{}` is the folder with what it reads.
        painted: sent once its first figures are on the screen.
        prepare: keys that bring it to the table, the map or the curves.
        steps: keys that move a cursor there, or what comes nearest.
    """

    name: str
    program: str
    arguments: tuple[str, ...]
    painted: bytes
    prepare: tuple[bytes, ...]
    steps: tuple[bytes, ...]
    what: str


_UP, _DOWN, _RIGHT, _LEFT = b"\x1b[A", b"\x1b[B", b"\x1b[C", b"\x1b[D"
PEERS = (
    Peer(
        "wandb leet", "wandb", ("leet", "{}/wandb"), rb"accuracy", (), (_DOWN, _DOWN, _UP, _UP) * 25,
        "next of 3 runs with its curves",
    ),
    Peer(
        "harlequin", "harlequin", ("{}/runs.duckdb",), rb"Query Editor",
        (b"\x01", b"select * from runs", b"\x0a", b"\x1b[15~"),
        (_DOWN,) * 10 + (_UP,) * 10 + (_DOWN,) * 40 + (_UP,) * 40,
        "cursor in a table of 2,000 rows",
    ),
    Peer(
        "h5tui", "h5tui", ("{}/map.h5",), rb"map",
        (_DOWN, b"\r", b"\t"), ((_RIGHT,) * 4 + (_DOWN,) * 10 + (_LEFT,) * 4 + (_UP,) * 10) * 4,
        "move in a map of 48 × 48",
    ),
)  # fmt: skip


def command_of(peer: Peer, python: Path, work: Path) -> Sequence[str] | None:
    """The command that opens a peer on data made for it; None where it is not installed."""
    program = python.parent / peer.program
    if not program.exists():
        return None
    folder = work / f"peer {peer.program}"
    if not folder.exists():
        folder.mkdir(parents=True)
        subprocess.run([python, "-c", _MADE[peer.program], folder], check=True, capture_output=True)
    return [str(program), *(each.format(folder) for each in peer.arguments)]
