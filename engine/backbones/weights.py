"""Weight files: where they come from, whether they are whole, what does not fit; knows nothing of how models are built.

Only safetensors files are read. A pickle can run code as it is loaded, `weights_only=True` or not (CVE-2025-32434).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.errors import DamagedError, WeightsError
from engine.files import sha256_file

_PICKLE_SUFFIXES = {".bin", ".ckpt", ".pkl", ".pickle", ".pt", ".pth", ".tar"}
_PICKLE_MAGIC = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_REMAKE = "remove the file and fetch it again"
_N_NAMED = 5  # keys that an error names before it counts


@dataclass(frozen=True)
class WeightsFile:
    """A safetensors file that is whole and holds finite numbers.

    Args:
        source: where it came from, for the records.
        sha256: digest of the file.
        shapes: shape of every tensor, by key.
    """

    path: Path
    source: str
    sha256: str
    shapes: Mapping[str, tuple[int, ...]]


def local_file(path: Path) -> WeightsFile:
    """Checks the file that the user gave.

    Raises:
        WeightsError, DamagedError: see `checked`.
    """
    return checked(path, f"file:{path}")


def hub_file(repository: str, filename: str, where: str) -> WeightsFile:
    """Takes a file from the hub cache, or fetches it into the cache.

    The cache is asked first, so that a cached file needs no network and stays the same from run to run.

    Raises:
        WeightsError: the file is neither in the cache nor to be had, and what `checked` raises.
        DamagedError: see `checked`.
    """
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache

    found = try_to_load_from_cache(repository, filename)
    if not isinstance(found, str):
        try:
            found = hf_hub_download(repository, filename)
        except Exception as error:  # the hub client's own, its transport's or OSError: each means "not fetched"
            folder = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
            raise WeightsError(
                where,
                f"its weights are not in the hub cache {folder} and cannot be fetched ({type(error).__name__})",
                f"fetch {constants.ENDPOINT}/{repository}/resolve/main/{filename} on a machine with network, put it "
                f'anywhere here, and add weights = "path/to/{filename}" under this [[backbone]]',
            ) from error
    return checked(Path(found), f"hub:{repository}/{filename}@{Path(found).parent.name}")


def checked(path: Path, source: str) -> WeightsFile:
    """Checks a weights file before anything is built from it.

    Raises:
        WeightsError: there is no such file, it is not safetensors, it holds no tensors, or some that are not finite.
        DamagedError: the file is cut short, or its header is not readable.
    """
    if not path.is_file():
        raise WeightsError(str(path), "no such file", "correct the path of weights under [[backbone]]")
    _refuse_pickle(path)
    shapes = _read_header(path)
    if not shapes:
        raise WeightsError(str(path), "holds no tensors", "give the weights of the backbone")
    _refuse_non_finite(path)
    return WeightsFile(path, source, sha256_file(path), shapes)


def misfit(error: RuntimeError, file: WeightsFile, name: str) -> WeightsError:
    """What did not fit when a library loaded `file` strictly, in the user's words.

    The library converts foreign formats first, so only torch knows what is left over in the end; it says so in text.
    """
    text = str(error)
    shapes = re.findall(r"size mismatch for (\S+): .*?Size\(\[(.*?)\]\).*?Size\(\[(.*?)\]\)", text)
    missing, extra = (
        re.findall(r'"([^"]+)"', match.group(1))
        if (match := re.search(rf"{kind} key\(s\) in state_dict: (.*)", text))
        else []
        for kind in ("Missing", "Unexpected")
    )
    parts = [
        listed("", [f"{key} is ({seen}), model needs ({need})" for key, seen, need in shapes], "; "),
        listed("missing ", missing),
        listed("not in the model: ", extra),
    ]
    problem = "; ".join(filter(None, parts)) or text.splitlines()[0]
    return foreign(file, name, problem)


def foreign(file: WeightsFile, name: str, problem: str) -> WeightsError:
    """The error for whole weights that are not those of the backbone."""
    return WeightsError(
        str(file.path),
        f"not the weights of {name}: {problem}",
        "give the weights of this backbone, or name the backbone they belong to",
    )


def listed(label: str, entries: list[str], separator: str = ", ") -> str:
    """The first entries and how many more there are; empty where there are none."""
    if not entries:
        return ""
    more = f" and {len(entries) - _N_NAMED} more" if len(entries) > _N_NAMED else ""
    return label + separator.join(entries[:_N_NAMED]) + more


def _refuse_pickle(path: Path) -> None:
    with path.open("rb") as file:
        is_pickle = file.read(4).startswith(_PICKLE_MAGIC)
    if is_pickle or path.suffix in _PICKLE_SUFFIXES:
        converted = path.with_suffix(".safetensors")
        if converted == path:  # torch.load goes by the suffix
            fix = f"rename it to {path.stem}.pth and give that: the command that converts it is then shown"
            raise WeightsError(str(path), "pickle files can run code; convert it", fix)
        command = (
            "import torch; from safetensors.torch import save_file; "
            f"d = torch.load({str(path)!r}, map_location='cpu', weights_only=True); "
            "d = d.get('state_dict', d.get('model', d)); "
            f"save_file({{k: v.clone() for k, v in d.items() if hasattr(v, 'clone')}}, {str(converted)!r})"
        )
        fix = f'if you trust its source, run python -c "{command}"'
        raise WeightsError(str(path), "pickle files can run code; convert it", fix)


def _read_header(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors, from a header that agrees with the size of the file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise DamagedError(str(path), "not a safetensors file, or cut short in its header", _REMAKE)
        try:
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            promised = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
            shapes = {key: tuple(entry["shape"]) for key, entry in header.items()}
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise DamagedError(str(path), "its safetensors header is not readable", _REMAKE) from error
    if promised != size:
        unit, name = (10**6, "MB") if abs(promised - size) >= 10**6 else (1, "bytes")
        seen = f"header promises {promised / unit:.0f} {name}, file has {size / unit:.0f} {name}"
        raise DamagedError(str(path), seen, _REMAKE)
    return shapes


def _refuse_non_finite(path: Path) -> None:
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:  # one tensor in memory at a time
            for key in file.keys():  # noqa: SIM118 - not a dict
                finite = torch.isfinite(file.get_tensor(key))
                if not finite.all():
                    n_bad = finite.numel() - int(finite.sum())
                    fix = "give weights from before the training diverged"
                    raise WeightsError(str(path), f"{key} has {n_bad} non-finite values", fix)
    except SafetensorError as error:
        raise DamagedError(str(path), f"not readable as safetensors ({error})", _REMAKE) from error
