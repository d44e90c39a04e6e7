"""Several processes that share each batch make the steps of one: every method, in float64 to 1e-10."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from engine.backbones import load_backbone
from engine.errors import StudyError
from engine.finetune.methods import METHODS
from engine.finetune.shared_batch import SharedBatch, check_shareable, is_shared
from engine.finetune.team import ALONE, Share, Team
from tests.engine.finetune.sharing import CASES
from tests.engine.finetune.test_penalties import spec_of
from tests.sweeps import IS_FULL

HAS_PEFT = importlib.util.find_spec("peft") is not None
ALL = [name for name, case in CASES.items() if case.method != "lora" or HAS_PEFT]
# What couples images, what is drawn, what is left over; the other methods differ in what does not see the team.
SAMPLE = ["augmented", "random_layers", "batch_norm_one_is_left", "cka_penalty", "bfloat16"]
NAMES = ALL if IS_FULL else SAMPLE
TIMEOUT_S = 400
WIDTH = 128  # of the bundled backbones


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Tensor]]:
    """By the number of processes: what all cases came to."""
    path = tmp_path_factory.mktemp("team")
    sizes = (1, 2, 3) if IS_FULL else (1, 2)
    for size in sizes:
        (path / str(size)).mkdir()
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.engine.finetune.sharing", str(rank), str(size), path / str(size),
             path / f"{size}.safetensors", *NAMES]
        )
        for size in sizes
        for rank in range(size)
    ]  # fmt: skip
    try:
        assert [child.wait(TIMEOUT_S) for child in children] == [0] * len(children)
    finally:
        for child in children:
            child.kill()
    return {size: load_file(path / f"{size}.safetensors") for size in sizes}


@pytest.mark.parametrize("name", [name for name in NAMES if name != "bfloat16"])
def test_several_processes_come_to_what_one_does(trained: dict[int, dict[str, Tensor]], name: str) -> None:
    alone, *others = (_of_case(each, name) for each in trained.values())
    assert len(alone) > 4
    for shared in others:
        assert shared.keys() == alone.keys()
        for key, value in alone.items():
            assert _gap(shared[key], value, key) <= _limit(name, key), key


def test_in_bfloat16_two_processes_come_to_what_one_does_in_halves(trained: dict[int, dict[str, Tensor]]) -> None:
    alone, shared = (_of_case(trained[size], "bfloat16") for size in (1, 2))
    assert len(alone) > 4 and shared.keys() == alone.keys()
    assert all(torch.equal(shared[key], value) for key, value in alone.items())


def _of_case(found: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: value for key, value in found.items() if key.startswith(f"{name}/")}


def _gap(found: Tensor, expected: Tensor, key: str) -> float:
    """The largest difference, but for what is of no consequence.

    A bias of the keys of attention changes nothing that a softmax makes: its gradient is rounding alone, which AdamW
    makes steps of where it is above 1e-8. With `l2_sp`, whose penalty sees the steps, they reach that even in float64.
    """
    gap = (found - expected).abs()
    is_moment = "/optimiser." in key and gap.shape == (3 * WIDTH,)  # AdamW numbers its moments; see the test below
    if key.startswith("l2_sp/") and ("attn.qkv.bias" in key or is_moment):  # of queries, keys and values
        gap[WIDTH : 2 * WIDTH] = 0
    return float(gap.max()) if gap.numel() else 0.0


def _limit(name: str, key: str) -> float:
    if "/train_penalty" in key and name == "l2_sp":
        return 1e-6  # of those biases, too
    return 1e-7 if name == "cka_penalty" else 1e-10  # layers are pooled in float32, which a third does not fit into


def test_only_biases_of_attention_have_the_shape_that_is_looked_for() -> None:
    parameters = load_backbone("bundled:supervised").named_parameters()
    found = {name.partition(".attn.")[2] for name, each in parameters if each.shape == (3 * WIDTH,)}
    assert found == {"qkv.bias"}


def test_every_method_that_is_shared_is_a_case() -> None:
    methods = {name for name in METHODS if is_shared(spec_of(name))}
    assert methods == {case.method for case in CASES.values()} and methods.isdisjoint({"linear", "wise_ft"})


@pytest.mark.parametrize(("n", "size"), [(8, 2), (5, 2), (1, 2), (2, 3), (64, 3)])
def test_shares_are_a_batch_once(n: int, size: int) -> None:
    shares = [Team(rank, size).share(n) for rank in range(size)]
    rows = [row for share in shares for row in range(n)[share.rows][: share.n_own]]
    assert rows == list(range(n))
    assert all(share.stop > share.start for share in shares)
    assert max(share.n_own for share in shares) - min(share.n_own for share in shares) <= 1
    assert ALONE.share(n) == Share.whole(n)


class _Layer(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "rand":
            return x * torch.rand(x.shape)
        if self.kind == "dropout2d":
            return nn.functional.dropout2d(x, 0.5, self.training)
        if self.kind == "attention":
            return nn.functional.scaled_dot_product_attention(x, x, x, dropout_p=0.1)
        if self.kind == "own rows":
            return nn.functional.dropout(x.reshape(3, -1), 0.5, self.training).reshape(x.shape)
        return nn.functional.batch_norm(x, None, None, training=True)


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (_Layer("rand"), "draws random numbers with rand"),
        (_Layer("dropout2d"), "draws random numbers with dropout2d"),
        (_Layer("attention"), "drops out attention at random"),
        (_Layer("own rows"), "random numbers that do not belong to single images"),
        (nn.MultiheadAttention(4, 2, dropout=0.1, batch_first=True), "drops out attention at random"),
    ],
)
def test_what_cannot_be_shared_is_refused(layer: nn.Module, why: str) -> None:
    x = torch.ones(2, 6, 4)
    with pytest.raises(StudyError, match=why), SharedBatch(Share(4, 0, 2, 2)):
        layer(x, x, x) if isinstance(layer, nn.MultiheadAttention) else layer(x)


@pytest.mark.parametrize("layer", [nn.AlphaDropout(0.0), nn.Dropout(0.5).eval(), nn.BatchNorm1d(6).eval(), nn.GELU()])
def test_what_draws_nothing_is_as_without(layer: nn.Module) -> None:
    x = torch.randn(2, 6, 4)
    with SharedBatch(Share(4, 0, 2, 2)):
        found = layer(x)
    torch.testing.assert_close(found, layer(x), rtol=0, atol=0)


def test_a_share_has_the_random_numbers_of_its_rows() -> None:
    x = torch.ones(6, 5)
    torch.manual_seed(0)
    whole = nn.functional.dropout(x, 0.5)
    for share in (Share(6, 0, 2, 2), Share(6, 2, 6, 4)):
        torch.manual_seed(0)
        with SharedBatch(share):
            found = nn.functional.dropout(x[share.rows], 0.5)
        assert torch.equal(found, whole[share.rows])


def test_a_backbone_whose_layers_cannot_be_shared_is_refused_before_training() -> None:
    backbone = load_backbone("bundled:supervised")
    specs = [spec_of(method) for method in ("full", "linear", "wise_ft")]
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    check_shareable(specs, backbone)
    backbone.blocks[0].attn.fused_attn = True
    backbone.blocks[0].attn.attn_drop.p = 0.2
    with pytest.raises(
        StudyError, match='full of backbone "bundled:supervised": a layer drops out attention at random'
    ):
        check_shareable(specs, backbone)
    check_shareable(specs[1:], backbone)
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_statistics_of_each_batch_alone_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = load_backbone("bundled:supervised")
    backbone.blocks[0].norm1 = nn.BatchNorm1d(65, track_running_stats=False)
    with pytest.raises(StudyError, match="normalises each batch by itself, also when nothing is trained"):
        check_shareable([spec_of("full")], backbone)


def test_rows_that_are_merged_keep_their_bits() -> None:
    values = np.array([[-0.0, np.nan], [1e-40, 3.0]], np.float32)
    assert ALONE.merged(values, np.arange(2), 2).tobytes() == values.tobytes()
