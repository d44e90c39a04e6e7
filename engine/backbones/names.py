"""Owns the names of backbones: their grammar, the table of families, the pre-training paradigm; imports no torch.

Whether a library knows a model is for its family to say, because only the library can.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from engine.errors import StudyError

PARADIGMS = ("supervised", "image-text", "self-supervised")


@dataclass(frozen=True)
class Family:
    """A source of backbones.

    Args:
        module: has `load(name: BackboneName, weights: Path | None, input_size: int | None) -> Backbone`.
        separator: stands between model and tag; empty where models have no tags.
        example: a name of this family, for errors.
        models: every model of the family, where that is known without its library.
    """

    module: str
    separator: str
    example: str
    models: tuple[str, ...] = ()


FAMILIES: Mapping[str, Family] = {
    "timm": Family("engine.backbones.timm_family", ".", "timm:vit_base_patch16_224.augreg_in21k"),
    "open_clip": Family("engine.backbones.open_clip_family", "/", "open_clip:ViT-B-16/laion2b_s34b_b88k"),
    "bundled": Family("engine.backbones.bundled_family", "", "bundled:supervised", PARADIGMS),  # one for each paradigm
}


@dataclass(frozen=True)
class BackboneName:
    """A name that is well formed; `tag` is empty where the family has none."""

    family: str
    model: str
    tag: str

    @property
    def in_library(self) -> str:
        """The name without its family, as the family's library writes it."""
        return self.model + (FAMILIES[self.family].separator + self.tag if self.tag else "")

    def __str__(self) -> str:
        return f"{self.family}:{self.in_library}"


def parse_name(text: str) -> BackboneName:
    """Takes a name such as `timm:vit_base_patch16_224.augreg_in21k` apart.

    The tag is required: a bare model stands for whichever weights the library prefers this year.

    Raises:
        StudyError: the family is missing or unknown, the model or the tag is missing, or the bundled backbone does not
            exist.
    """
    family_name, colon, rest = text.partition(":")
    if family_name not in FAMILIES or not colon:
        seen = f'unknown family "{family_name}"' if colon else "no family"
        nearest = did_you_mean(family_name, FAMILIES) if colon else ""
        raise StudyError(
            _where(text), seen + nearest, f"write a name like {_either(f.example for f in FAMILIES.values())}"
        )
    family = FAMILIES[family_name]
    model, tag = rest, ""
    if family.separator == ".":
        model, _, tag = rest.partition(".")
    elif family.separator:
        model, _, tag = rest.rpartition(family.separator)
    if not model or (family.separator and not tag) or re.search(r"[^\w.\-/]", rest):
        need = f"need <model>{family.separator}<tag>" if family.separator else "need <model>"
        raise StudyError(
            _where(text), f'malformed (seen "{rest}", {need})', f"write it like {_either([family.example])}"
        )
    name = BackboneName(family_name, model, tag)
    if family.models and model not in family.models:
        raise unknown_model(name, family.models)
    return name


def unknown_model(name: BackboneName, known: Iterable[str]) -> StudyError:
    """The error for a well-formed name that its family does not know, with the nearest that it does.

    Args:
        known: every name of the family, as `BackboneName.in_library` writes it.
    """
    known = list(known)
    nearest = difflib.get_close_matches(name.in_library, known, n=3, cutoff=0.4) or known[:3]
    problem = f"{name.family} has no backbone of this name with pre-trained weights"
    tags = [each for each in known if name.tag and each.startswith(name.model + FAMILIES[name.family].separator)]
    if tags:
        nearest, problem = tags[:8], f'{name.model} has no weights "{name.tag}"'
    return StudyError(_where(str(name)), problem, f"write {_either(f'{name.family}:{each}' for each in nearest)}")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean "x"?` for the nearest known word, empty where none is near."""
    nearest = difflib.get_close_matches(word, list(known), n=1)
    return f'; did you mean "{nearest[0]}"?' if nearest else ""


# First match wins, on "<model>.<tag>" of timm. A backbone counts by what it was pre-trained with first: CLIP weights
# that were fine-tuned on ImageNet labels afterwards stay image-text, BEiT and MAE ones stay self-supervised.
_TIMM_PARADIGMS = (
    ("unknown", r"radio|eupe|lingbot|sapiens"),  # distilled from teachers of several paradigms, or not documented
    ("image-text", r"clip|siglip|webli|\.pali|aimv2|beit3|vit_pe_|tips"),
    (
        "self-supervised",
        r"dino|\.(fc)?mae|\.seer|ijepa|beit|\.mim|m30m|eva_large",
    ),  # EVA masks images, though its targets are of CLIP
    ("supervised", r"in1k|in12k|in21k|in22k|inw21k"),
)


def paradigm_of(name: str | BackboneName) -> str:
    """How a backbone was pre-trained: "supervised", "image-text", "self-supervised" or "unknown".

    The first pre-training counts, not a fine-tuning on labels after it: `vit_base_patch16_clip_224.openai_ft_in1k` is
    image-text. "unknown" means that the name does not tell.

    Raises:
        StudyError: the name is malformed.
    """
    name = parse_name(name) if isinstance(name, str) else name
    if name.family == "bundled":
        return name.model
    if name.family == "open_clip":
        return "image-text"
    matches = (paradigm for paradigm, pattern in _TIMM_PARADIGMS if re.search(pattern, name.in_library))
    return next(matches, "unknown")


def _where(text: str) -> str:
    return f'backbone "{text}"'


def _either(names: Iterable[str]) -> str:
    return " or ".join(f'"{each}"' for each in names)
