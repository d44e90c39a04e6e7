"""Fits the tensors of a foreign checkpoint to a backbone: other names, other containers, joined and split tensors.

What fits is decided by names and shapes together; every value of the backbone comes from the checkpoint, or it is
refused. Knows nothing of folders, pickles or training.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from engine.backbones import weights as weight_files
from engine.backbones.backbone import Backbone
from engine.errors import WeightsError
from engine.foreign.dialects import DIALECTS, OWN, Dialect, open_clip_name, translate
from engine.foreign.heads import Head, find_head
from engine.foreign.positions import fit_positions

_COUNTER = "num_batches_tracked"  # no output depends on it in evaluation, and old files lack it
_POSITIONS = ("pos_embed", "positional_embedding")
# Wrappers put these into the middle of names.
_WRAPPERS = re.compile(r"(^|\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)(?=\.)")
_AVERAGED = re.compile(r"(^|[._])(ema|averaged|swa)($|[._])", re.IGNORECASE)
_ADAPTERS = re.compile(r"\.(lora_[A-Za-z_]+|base_layer|hada_w\d\w*|oft_\w|ia3_l)(\.|$)")
# Parts of some of timm's networks between the last block and the classifier, or before the first block.
_FEATURES = re.compile(r"(fc_norm|attn_pool|norm_pre|norm|pre_logits|pos_drop|patch_drop|pool)(\.|$)")
_N_SHAPES = 3


@dataclass(frozen=True)
class Fitted:
    """A checkpoint in the backbone's own terms.

    Args:
        weights: exactly the entries of `backbone.model.state_dict()`, in their types and shapes.
        head: None where there is none that sits on the embedding; `notes` says why where the checkpoint has one.
        left_aside: names in the checkpoint that are used neither for the backbone nor for the head.
        renamed_by: how names were translated, such as `without "module."; names of transformers' ViT`; "" where they
            are the backbone's own.
        notes: what the user should know: position embeddings resampled, half precision, averaged weights left aside.
    """

    weights: Mapping[str, Tensor]
    head: Head | None
    left_aside: tuple[str, ...]
    renamed_by: str
    notes: tuple[str, ...]


def read_tensors(files: Sequence[Path]) -> dict[str, Tensor]:
    """The tensors of safetensors files, on the CPU; several are the shards of one checkpoint.

    Raises:
        WeightsError: a file is absent, a pickle, holds values that are not finite, or a name that another holds too.
        DamagedError: a file is cut short.
    """
    found: dict[str, Tensor] = {}
    for path in files:
        file = weight_files.checked(path, f"file:{path}")
        if twice := sorted(found.keys() & file.shapes):
            problem = weight_files.listed("holds what another shard holds too: ", twice)
            raise WeightsError(str(path), problem, "keep the shards of one checkpoint alone in a folder")
        with safe_open(path, "pt") as tensors:
            found.update({name: tensors.get_tensor(name) for name in file.shapes})
    return found


def fit_to_backbone(
    tensors: Mapping[str, Tensor], backbone: Backbone, where: str, *, part: str | None = None
) -> Fitted:
    """A checkpoint's weights under the names and in the shapes of a backbone, which is left as it is.

    Args:
        tensors: by name, see `read_tensors`; of a converted pickle with the names of its containers before them.
        backbone: at the input size of the training; its weights do not matter, only names and shapes ("meta" will do).
        where: the checkpoint as the user knows it, for errors.
        part: which of several networks in the checkpoint: a word of their names, such as "teacher" or
            "state_dict_ema". Without it the averaged weights (EMA) are left aside, and said so.
    Raises:
        WeightsError: the checkpoint is not of this backbone (missing, left over, other shapes), holds several networks
            that fit or none under `part`, or adapters that are not merged.
    """
    if adapters := [name for name in tensors if _ADAPTERS.search(name)]:
        problem = weight_files.listed("holds adapters that are not merged: ", adapters)
        raise WeightsError(where, problem, "save the model after merging them, with merge_and_unload() of peft")
    needed: dict[str, Tensor] = backbone.model.state_dict()
    source = _Source(where, tensors, backbone, needed)
    chosen, notes = _choose(_networks(source), source, part)
    positions, said = fit_positions(chosen.tensors, backbone, chosen.dialect.positions_count_the_class, where)
    fitting = {**chosen.tensors, **positions}
    weights = _values(fitting, source)
    extras = _extras(chosen, source)
    leftover = _leftover(chosen, source)
    head, head_notes = find_head(leftover, chosen.prefix, chosen.dialect, backbone, has_unknown=bool(extras))
    of_head = {head.name, f"{head.name.removesuffix('weight')}bias"} if head else set()
    left_aside = tuple(source.originals[name] for name in leftover if name not in of_head)
    return Fitted(weights, head, left_aside, chosen.words, (*notes, *said, *_cast(fitting, needed), *head_notes))


@dataclass(frozen=True)
class _Source:
    """What was given, with the names that wrappers have put in between removed."""

    where: str
    given: Mapping[str, Tensor]
    backbone: Backbone
    needed: Mapping[str, Tensor]

    @cached_property
    def originals(self) -> dict[str, str]:
        """Each name without wrappers, and as it was given."""
        names = [(_WRAPPERS.sub("", name).removeprefix("."), name) for name in self.given]
        if len({name for name, _ in names}) < len(names):  # compiled and plain copies side by side
            return {name: name for name in self.given}
        return dict(names)

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        return {name: self.given[original] for name, original in self.originals.items()}

    def error(self, problem: str) -> WeightsError:
        fix = "name the backbone that was trained with --backbone, at its input size, or leave this checkpoint out"
        return WeightsError(self.where, f"not the weights of {self.backbone.info.name}: {problem}", fix)


@dataclass(frozen=True)
class _Network:
    """The tensors below one prefix, by the backbone's names as far as they go."""

    prefix: str
    dialect: Dialect
    tensors: Mapping[str, Tensor]
    sources: Mapping[str, tuple[str, ...]]
    missing: tuple[str, ...]
    n_found: int

    @property
    def words(self) -> str:
        prefix = f'without "{self.prefix}"' if self.prefix else ""
        names = f"names of {self.dialect.label}" if self.dialect.label else ""
        return "; ".join(filter(None, (prefix, names)))


def _networks(source: _Source) -> list[_Network]:
    """What there is below each prefix under which something of the backbone is found, best dialect each."""
    found: dict[str, _Network] = {}
    is_open_clip = "transformer.resblocks.0.ln_1.weight" in source.needed
    for dialect in (OWN, *DIALECTS):
        for prefix in _prefixes(dialect, source):
            if prefix in found and not found[prefix].missing:
                continue
            network = _network(source, prefix, dialect, is_open_clip)
            if prefix not in found or network.n_found > found[prefix].n_found:
                found[prefix] = network
    return list(found.values())


def _prefixes(dialect: Dialect, source: _Source) -> list[str]:
    """What may stand before the names of a network of this dialect."""
    if dialect is not OWN:
        anchor = dialect.anchor
        ends = [name.removesuffix(anchor) for name in source.tensors if name.endswith(anchor)]
        return [each for each in ends if not each or each.endswith(".")]
    counts: Counter[str] = Counter()
    for name in source.tensors:
        starts = [0, *(match.end() for match in re.finditer(r"\.", name))]
        counts.update(name[:start] for start in starts if name[start:] in source.needed)
    return [prefix for prefix, n in counts.items() if 2 * n > len(source.needed)]


def _network(source: _Source, prefix: str, dialect: Dialect, is_open_clip: bool) -> _Network:
    below = {name.removeprefix(prefix): t for name, t in source.tensors.items() if name.startswith(prefix)}
    if dialect is OWN:
        tensors: Mapping[str, Tensor] = below
        sources: Mapping[str, tuple[str, ...]] = {name: (name,) for name in below}
    else:
        translated = translate(dialect, below)
        tensors, sources = translated.tensors, translated.sources
        if is_open_clip:
            tensors = {open_clip_name(name): tensor for name, tensor in tensors.items()}
            sources = {open_clip_name(name): each for name, each in sources.items()}
    missing = tuple(name for name in source.needed if name not in tensors and not name.endswith(_COUNTER))
    n_found = sum(name in tensors for name in source.needed)
    return _Network(prefix, dialect, tensors, sources, missing, n_found)


def _choose(networks: list[_Network], source: _Source, part: str | None) -> tuple[_Network, tuple[str, ...]]:
    """The one network that is meant, and what is to be said of the others."""
    whole = [network for network in networks if not network.missing]
    if not whole:
        raise _misfit(networks, source)
    if part is not None:
        named = [network for network in whole if part in network.prefix.split(".")]
        if not named:
            problem = f'holds nothing named "{part}" that fits (seen {_listed(whole)})'
            raise WeightsError(source.where, problem, "give --part one of these words, or leave it out")
        whole = named
    notes: tuple[str, ...] = ()
    trained = [network for network in whole if not _AVERAGED.search(network.prefix)]
    averaged = [network for network in whole if network not in trained]
    if trained and averaged:
        notes = (f"averaged weights (EMA) in {_listed(averaged)} are left aside; --part takes them instead",)
    elif averaged:
        notes = (f"the weights are averages over the training (EMA), of {_listed(averaged)}",)
    meant = trained or averaged
    if len(meant) > 1:
        words = _distinguishing(meant)
        problem = f"holds {len(meant)} networks that fit: {_listed(meant)}"
        fix = f"say which with --part {' or --part '.join(words)}"
        raise WeightsError(source.where, problem, fix)
    return meant[0], notes


def _listed(networks: list[_Network]) -> str:
    return weight_files.listed("", [f'"{each.prefix.removesuffix(".")}"' for each in networks])


def _distinguishing(networks: list[_Network]) -> list[str]:
    """A word of each prefix that the others do not have, the first of them."""
    words = [network.prefix.removesuffix(".").split(".") for network in networks]
    counts = Counter(word for each in words for word in set(each))
    return [next((word for word in each if counts[word] == 1), each[-1]) for each in words]


def _misfit(networks: list[_Network], source: _Source) -> WeightsError:
    nearest = max(networks, key=lambda network: network.n_found, default=None)
    if nearest is None or nearest.n_found == 0:
        seen = weight_files.listed("", list(source.given)) or "none"
        return source.error(f"none of its names are known here (seen {seen})")
    shapes = _other_shapes(nearest.tensors, source.needed)
    parts = [weight_files.listed("missing ", list(nearest.missing)), shapes]
    known = f" ({nearest.words})" if nearest.words else ""
    pooled = any(_FEATURES.match(name) for name in nearest.tensors.keys() - source.needed.keys())
    hint = "; it was trained with another pooling" if pooled and "norm.weight" in nearest.missing else ""
    return source.error("; ".join(filter(None, parts)) + hint + known)


def _other_shapes(tensors: Mapping[str, Tensor], needed: Mapping[str, Tensor]) -> str:
    """The first tensors that have other shapes; positions, which can be resampled, are not among them."""
    other = [
        f"{name} is {tuple(tensors[name].shape)}, model needs {tuple(needed[name].shape)}"
        for name in needed
        if name in tensors and name not in _POSITIONS and not _alike(tensors[name], needed[name])
    ]
    more = f" and {len(other) - _N_SHAPES} more" if len(other) > _N_SHAPES else ""
    return "; ".join(other[:_N_SHAPES]) + more


def _alike(tensor: Tensor, needed: Tensor) -> bool:
    """The same shape; sides of 1 do not count, as in a 1 × 1 convolution that another library has as a linear layer."""
    return [n for n in tensor.shape if n != 1] == [n for n in needed.shape if n != 1]


def _values(fitting: Mapping[str, Tensor], source: _Source) -> dict[str, Tensor]:
    """The backbone's entries in its own shapes and types."""
    if other := _other_shapes(fitting, source.needed):
        raise source.error(other)
    weights = {}
    for name, needed in source.needed.items():
        if name not in fitting:  # a counter
            weights[name] = torch.zeros(needed.shape, dtype=needed.dtype)
            continue
        found = fitting[name]
        if found.is_floating_point() != needed.is_floating_point():
            raise source.error(f"{name} is of type {_type(found)}, model needs {_type(needed)}")
        weights[name] = found.to(needed.dtype).reshape(needed.shape).contiguous()
        n_bad = weights[name].numel() - int(torch.isfinite(weights[name]).sum())
        if n_bad:
            fix = "give weights from before the training diverged"
            raise WeightsError(source.where, f"{name} has {n_bad} non-finite values as {_type(needed)}", fix)
    return weights


def _cast(fitting: Mapping[str, Tensor], needed: Mapping[str, Tensor]) -> tuple[str, ...]:
    """What to say where values were stored in another type than they are computed with."""
    types = Counter(
        _type(fitting[name]) for name, each in needed.items() if name in fitting and fitting[name].dtype != each.dtype
    )
    return tuple(f"{n} of {len(needed)} tensors were stored as {name}" for name, n in types.items())


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _extras(chosen: _Network, source: _Source) -> list[str]:
    """What the checkpoint has beside the backbone's weights, below the same prefix, and no features depend on.

    Raises:
        WeightsError: the features may depend on it, so that the backbone alone would give others.
    """
    tops = {name.partition(".")[0] for name in source.needed}
    heads = _head_names(source.backbone)
    dropped = f"{chosen.dialect.dropped}|proj" if "ln_post.weight" in source.needed else chosen.dialect.dropped
    extras = []
    inside = []
    for name in chosen.tensors:
        if name in source.needed or re.fullmatch(dropped, name):
            continue
        if any(name.startswith(f"{head}.") for head in heads):
            continue
        top, dot, _ = name.partition(".")
        if top in tops or _FEATURES.match(name) or not dot:  # a bare parameter may be a token, as a prompt is
            inside.append(name)
        else:
            extras.append(name)
    if inside:
        raise source.error(weight_files.listed("not in the model: ", inside))
    return extras


def _head_names(backbone: Backbone) -> tuple[str, ...]:
    config: Any = getattr(backbone.model, "pretrained_cfg", None) or {}
    named = config.get("classifier") or ()
    return ("head", "fc", "classifier", *((named,) if isinstance(named, str) else named))


def _leftover(chosen: _Network, source: _Source) -> dict[str, Tensor]:
    """What the backbone does not take, by the names in the checkpoint without wrappers."""
    used = {f"{chosen.prefix}{name}" for target in source.needed for name in chosen.sources.get(target, ())}
    return {name: tensor for name, tensor in source.tensors.items() if name not in used}
