"""What a user has typed and chosen for a new study, and what was found out about it; asks nothing, draws nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engine.backbones.facts import RECOMMENDED, BackboneFacts, weights_place
from engine.data.inspection import Problem
from engine.errors import SimtuiError, StudyError
from engine.finetune.methods import METHODS
from engine.jobs.forecast import Forecast, Images, Speed, forecast, free_bytes
from engine.study import FinetuneSection, Study
from engine.study_draft import Draft, DraftBackbone, Place, check, draft_study, place_of, problem_of
from simtui.completion import absolute

# A study tests whether all can be decoded; here a few show what they are.
N_DECODED = 200


@dataclass(frozen=True)
class Dataset:
    """What `simtui data` says of a folder."""

    layout: str
    task: str
    is_synthetic: bool
    classes: Mapping[str, int]
    n_of_split: Mapping[str, int]
    group_name: str
    n_groups: int
    problems: tuple[Problem, ...]
    n_decoded: int
    decode_s: float

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Dataset:
        """The dataset of an answer of `simtui data --json`."""
        return cls(
            answer["layout"],
            answer["task"],
            answer["is_synthetic"],
            {name: sum(answer["n_of"][name].values()) for name in answer["classes"]},
            answer["n_of_split"],
            answer["group_name"] or "",
            answer["n_groups"],
            tuple(Problem(**{**each, "files": tuple(each["files"])}) for each in answer["problems"]),
            answer["n_decoded"],
            answer["decode_s"],
        )

    @property
    def n_images(self) -> int:
        """In all splits."""
        return sum(self.n_of_split.values())

    @property
    def stops(self) -> tuple[Problem, ...]:
        """What a study could not start with."""
        return tuple(problem for problem in self.problems if problem.severity == "stops")


@dataclass(frozen=True)
class Look:
    """A look at a folder: under way since `started_s` while there is neither a dataset nor an error."""

    path: str = ""
    started_s: float = 0.0
    dataset: Dataset | None = None
    error: SimtuiError | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether an answer is awaited."""
        return bool(self.path) and self.dataset is None and self.error is None


@dataclass(frozen=True)
class Entry:
    """A backbone that can be chosen; `weights` is a local file of its weights."""

    facts: BackboneFacts
    place: str
    is_chosen: bool = False
    weights: str = ""


def first_entries() -> tuple[Entry, ...]:
    """The bundled backbones and those of the paper; none is chosen."""
    return tuple(Entry(each, weights_place(each)) for each in RECOMMENDED)


@dataclass(frozen=True)
class Form:
    """All of it. `speeds` are by backbone, for `n_probe` probe images."""

    images: str = ""
    origin: str = ""
    typed_name: str = ""
    folder: str = "."
    entries: tuple[Entry, ...] = ()
    methods: tuple[str, ...] = FinetuneSection.methods
    seeds: str = str(FinetuneSection.seeds)
    epochs: str = str(FinetuneSection.epochs)
    batch_size: str = str(FinetuneSection.batch_size)
    looks: Mapping[str, Look] = field(default_factory=dict)
    speeds: Mapping[tuple[str, int], Speed] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What was typed, else after the folder of the images."""
        if self.typed_name.strip():
            return self.typed_name.strip()
        stem = Path(absolute(self.images)).name.removesuffix(".npz")
        return re.sub(r"[^\w.-]+", "-", stem, flags=re.ASCII).strip("-._")[:60] or "study"

    @property
    def chosen(self) -> tuple[Entry, ...]:
        """The backbones that were chosen."""
        return tuple(entry for entry in self.entries if entry.is_chosen)

    def look(self, which: str) -> Look:
        """The look at `images` or `origin` as it is typed now; an empty one where that was not looked at."""
        look = self.looks.get(which, Look())
        return look if look.path == absolute(getattr(self, which)) else Look()

    def toggled(self, name: str) -> Form:
        """With a backbone chosen, or no longer."""
        changed = (replace(e, is_chosen=not e.is_chosen) if e.facts.name == name else e for e in self.entries)
        return replace(self, entries=tuple(changed))

    def with_entry(self, entry: Entry) -> Form:
        """With one more backbone; one of this name takes its place."""
        if any(each.facts.name == entry.facts.name for each in self.entries):
            entries = tuple(entry if each.facts.name == entry.facts.name else each for each in self.entries)
            return replace(self, entries=entries)
        return replace(self, entries=(*self.entries, entry))

    def toggled_method(self, name: str) -> Form:
        """With a method chosen, or no longer; in the order of the table."""
        kept = set(self.methods) ^ {name}
        return replace(self, methods=tuple(each for each in METHODS if each in kept))

    def draft(self) -> Draft:
        """What the study file is written from."""
        backbones = tuple(DraftBackbone(each.facts.name, each.weights) for each in self.chosen)
        return Draft(
            self.name,
            absolute(self.images),
            absolute(self.origin),
            backbones,
            self.methods,
            _number(self.seeds),
            _number(self.epochs),
            _number(self.batch_size),
        )

    def place(self) -> Place:
        """Where the study goes.

        Raises:
            StudyError: it cannot have this name.
        """
        return place_of(Path(absolute(self.folder) or Path.cwd()), self.name)

    def study(self) -> Study:
        """The study as the loader of study files reads it.

        Raises:
            StudyError: it refuses it, or something is missing.
        """
        return draft_study(self.draft(), self.place())

    def problem(self) -> SimtuiError | None:
        """Why the study file cannot be written yet; None where it can."""
        try:
            check(self.draft())
            return problem_of(self.draft(), self.place())
        except SimtuiError as error:
            return error

    def start_problem(self) -> SimtuiError | None:
        """Why the study cannot be started yet; None where it can."""
        if found := self.problem():
            return found
        for which in ("images", "origin"):
            look = self.look(which)
            if not getattr(self, which).strip():
                continue
            if look.error:
                return look.error
            if look.dataset is None:
                return StudyError(which, "still being read", "wait a moment, or write the study file only")
            if look.dataset.stops:
                problem = look.dataset.stops[0]
                return StudyError(which, problem.text, problem.fix or f'see "simtui data {look.path}"')
        lacking = [each for each in self.chosen if each.weights and not Path(each.weights).is_file()]
        return StudyError(lacking[0].weights, "no such file", "give the path of its weights") if lacking else None

    def counted(self) -> Images | None:
        """What the forecast needs of the images; None until they have been looked at."""
        dataset = self.look("images").dataset
        if dataset is None:
            return None
        origin = self.look("origin").dataset
        n = dataset.n_of_split
        rate = dataset.n_decoded / dataset.decode_s if dataset.decode_s > 0 else 0.0
        sizes = (n.get("train", 0), n.get("val", 0), n.get("test", 0))
        return Images(*sizes, len(dataset.classes), origin.n_images if origin else 0, rate)

    def n_probe(self) -> int:
        """Probe images of the study; 0 while that is not known."""
        images = self.counted()
        try:
            return min(self.study().probe.n, images.n_test) if images else 0
        except SimtuiError:
            return 0

    def forecast(self) -> Forecast | None:
        """What the study will take; None while images, backbones or numbers are missing."""
        images = self.counted()
        if images is None:
            return None
        try:
            study = self.study()
        except SimtuiError:
            return None
        n_probe = min(study.probe.n, images.n_test)
        facts = {each.facts.name: each.facts for each in self.chosen}
        speeds = {name: speed for (name, n), speed in self.speeds.items() if n == n_probe and name in facts}
        return forecast(study, images, facts, speeds)

    def free_bytes(self) -> int | None:
        """Free space where the study goes; None where the disk does not say."""
        try:
            return free_bytes(Path(absolute(self.folder) or Path.cwd()))
        except OSError:
            return None


def _number(text: str) -> int | str:
    """A whole number, or what was typed instead: the loader says what is wrong with it."""
    return int(text) if text.strip().isascii() and text.strip().isdecimal() else text
