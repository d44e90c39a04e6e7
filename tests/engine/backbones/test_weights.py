"""Every way in which a weights file can be wrong, and the sentence for it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.backbones.weights import WeightsFile, checked, foreign, hub_file, listed, local_file, misfit
from engine.errors import DamagedError, WeightsError
from engine.files import sha256_file


def write(path: Path, **tensors: torch.Tensor) -> Path:
    save_file(tensors or {"weight": torch.arange(6.0).reshape(2, 3)}, path, metadata={"format": "pt"})
    return path


def with_header(path: Path, header: bytes, data: bytes = b"") -> Path:
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    return path


def test_whole_file_is_described(tmp_path: Path) -> None:
    path = write(tmp_path / "w.safetensors", a=torch.ones(2, 3), b=torch.ones(4, dtype=torch.int64))
    file = local_file(path)
    assert file == WeightsFile(path, f"file:{path}", sha256_file(path), {"a": (2, 3), "b": (4,)})


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no such file\n  fix: correct the path of weights under \[\[backbone\]\]"):
        local_file(tmp_path / "w.safetensors")


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.bin", "w.ckpt", "w.unknown"])
def test_pickle_is_refused_and_the_fix_converts_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    weight = torch.ones(2, 2)
    torch.save({"state_dict": {"a": weight, "b": weight}, "epoch": 3}, path)
    with pytest.raises(WeightsError) as caught:
        local_file(path)
    assert caught.value.problem == "pickle files can run code; convert it"
    command = re.fullmatch(r'if you trust its source, run python -c "(.*)"', caught.value.fix)
    assert command is not None
    exec(command[1], {})
    assert torch.equal(load_file(path.with_suffix(".safetensors"))["b"], weight)


def test_pickle_under_a_wrong_name_is_refused(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"pickle files can run code; convert it\n  fix: rename it to w.pth and"):
        local_file(tmp_path / "w.safetensors")


def test_file_that_only_claims_to_be_a_pickle_is_refused_too(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="pickle files can run code"):
        local_file(write(tmp_path / "w.bin"))


def test_truncated_file_says_how_much_is_there(tmp_path: Path) -> None:
    path = write(tmp_path / "w.safetensors", a=torch.ones(1_000_000))
    whole = path.read_bytes()
    path.write_bytes(whole[:1_500_000])
    with pytest.raises(
        DamagedError, match=r"header promises 4 MB, file has 2 MB\n  fix: remove the file and fetch it again"
    ):
        local_file(path)
    path.write_bytes(whole + b"x")
    with pytest.raises(DamagedError, match=f"header promises {len(whole)} bytes, file has {len(whole) + 1} bytes"):
        local_file(path)


@pytest.mark.parametrize("content", [b"", b"abc", b"\xff" * 30])
def test_file_without_a_whole_header(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(DamagedError, match="not a safetensors file, or cut short in its header"):
        local_file(path)


@pytest.mark.parametrize(
    "header",
    [
        b"{not json",
        b"[1]",
        b'{"a": 1}',
        b'{"a": {"shape": [1]}}',
        b'{"a": {"shape": 1, "data_offsets": [0, 4]}}',
        b"\xff",
    ],
)
def test_header_that_is_not_readable(tmp_path: Path, header: bytes) -> None:
    with pytest.raises(DamagedError, match="its safetensors header is not readable"):
        local_file(with_header(tmp_path / "w.safetensors", header))


def test_header_that_safetensors_itself_refuses(tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [5], "data_offsets": [0, 4]}}).encode()
    with pytest.raises(DamagedError, match="not readable as safetensors"):
        local_file(with_header(tmp_path / "w.safetensors", header, bytes(4)))


def test_file_without_tensors(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="holds no tensors"):
        local_file(with_header(tmp_path / "w.safetensors", b"{}"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_non_finite_values_are_counted(tmp_path: Path, dtype: torch.dtype) -> None:
    weight = torch.zeros(20, dtype=dtype)
    weight[:11], weight[11] = torch.nan, torch.inf
    path = write(tmp_path / "w.safetensors", fine=torch.ones(2), **{"blocks.3.attn.qkv.weight": weight})
    with pytest.raises(
        WeightsError, match=r"blocks.3.attn.qkv.weight has 12 non-finite values\n  fix: give weights from before"
    ):
        local_file(path)


def test_hub_file_comes_from_the_cache_without_network(tmp_path: Path, hub: Callable[[str, str, Path], None]) -> None:
    hub("some/model", "model.safetensors", write(tmp_path / "w.safetensors"))
    file = hub_file("some/model", "model.safetensors", "x")
    assert file.source == "hub:some/model/model.safetensors@0123456789abcdef0123456789abcdef01234567"
    assert file.sha256 == sha256_file(tmp_path / "w.safetensors")


def test_missing_hub_file_says_what_to_fetch_and_where_to_put_it(hub: object) -> None:
    with pytest.raises(WeightsError) as caught:
        hub_file("timm/vit.tag", "model.safetensors", 'backbone "timm:vit.tag"')
    assert caught.value.where == 'backbone "timm:vit.tag"'
    problem = r"its weights are not in the hub cache /.*/models--timm--vit.tag and cannot be fetched \(\w+Error\)"
    assert re.fullmatch(problem, caught.value.problem)
    assert caught.value.fix == (
        "fetch https://huggingface.co/timm/vit.tag/resolve/main/model.safetensors on a machine with network, "
        'put it anywhere here, and add weights = "path/to/model.safetensors" under this [[backbone]]'
    )


class TestMisfit:
    """What torch says of a strict load, in the user's words."""

    def error_of(self, tmp_path: Path, model: torch.nn.Module, **tensors: torch.Tensor) -> WeightsError:
        file = checked(write(tmp_path / "w.safetensors", **tensors), "x")
        with pytest.raises(RuntimeError) as caught:
            model.load_state_dict(load_file(file.path))
        return misfit(caught.value, file, "bundled:x")

    def test_wrong_shape(self, tmp_path: Path) -> None:
        model = torch.nn.ModuleDict({"head": torch.nn.Linear(768, 7)})
        error = self.error_of(tmp_path, model, **{"head.weight": torch.ones(4, 768), "head.bias": torch.ones(7)})
        assert str(error) == (
            f"{tmp_path}/w.safetensors: not the weights of bundled:x: head.weight is (4, 768), model needs (7, 768)\n"
            "  fix: give the weights of this backbone, or name the backbone they belong to"
        )

    def test_missing_and_extra_keys_are_named_up_to_five(self, tmp_path: Path) -> None:
        model = torch.nn.ModuleDict({f"m{i}": torch.nn.Linear(1, 1) for i in range(3)})
        error = self.error_of(tmp_path, model, **{f"e{i}": torch.ones(1) for i in range(8)})
        assert error.problem == (
            "not the weights of bundled:x: missing m0.weight, m0.bias, m1.weight, m1.bias, m2.weight and 1 more; "
            "not in the model: e0, e1, e2, e3, e4 and 3 more"
        )

    def test_another_message_is_passed_on(self, tmp_path: Path) -> None:
        file = checked(write(tmp_path / "w.safetensors"), "x")
        assert misfit(RuntimeError("shape '[1]' is invalid\nat"), file, "n").problem.endswith(
            ": shape '[1]' is invalid"
        )
        assert foreign(file, "n", "p").problem == "not the weights of n: p"


def test_listed_is_empty_without_entries() -> None:
    assert listed("missing ", []) == ""
    assert listed("missing ", ["a", "b"]) == "missing a, b"
