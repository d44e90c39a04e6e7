"""Filters, orders and groups of runs: which are shown in which order, and what is said of a filter that is wrong."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from engine.analysis.study_data import in_study_order
from engine.errors import DamagedError
from engine.runs.catalog import DamagedRun
from engine.runs.record import Provenance, RunRecord, State
from engine.study import RunSpec, run_specs
from simtui.reader import Snapshot
from simtui.selection import Selection
from simtui.views import run_groups, runs
from simtui.views.run_facts import KnownRuns
from simtui.views.run_filter import Filter, Problem, exactly, in_force, read_filter
from simtui.views.run_order import run_ids_in_order, sort_values
from simtui.views.sorting import Order, in_order
from tests.simtui.studies import made_record, made_results, study_of

BACKBONES = ("bundled:supervised", "bundled:self-supervised")
STUDY = study_of(BACKBONES, seeds=2, epochs=4)


def _record(spec: RunSpec, **last: float | None) -> RunRecord:
    record = made_record(spec, made_results(spec, 2, 5), 4, 2)
    return record.with_(last={**record.last, **last})


def _snapshot(records: list[RunRecord], damaged: tuple[str, ...] = ()) -> Snapshot:
    broken = (DamagedRun(name, DamagedError(f"/s/{name}/run.json", "not readable", "remove it")) for name in damaged)
    return Snapshot(Path("/s"), "s", tuple(records), tuple(broken), ("linear_cka", "debiased_cka"), True)


RECORDS = list(in_study_order([_record(spec) for spec in run_specs(STUDY)], STUDY))
SNAPSHOT = _snapshot(RECORDS, ("run-x",))
KNOWN = KnownRuns.of(SNAPSHOT)


def _matching(text: str, known: KnownRuns = KNOWN) -> list[str]:
    found = read_filter(text, known)
    assert isinstance(found, Filter), found
    return [run.run_id for run in known.runs if found.holds(run)]


def _ids(is_so: object) -> list[str]:
    assert callable(is_so)
    return [record.run_id for record in RECORDS if is_so(record)]


@pytest.mark.parametrize(
    ("text", "is_so"),
    [
        ("", lambda r: True),
        ("full", lambda r: r.spec.method == "full"),
        ("FuLL dermo", lambda r: r.spec.method == "full"),
        ("-full", lambda r: r.spec.method != "full"),
        ("method:full,linear", lambda r: r.spec.method != "scratch"),
        ("-method:full,linear", lambda r: r.spec.method == "scratch"),
        ("method!=scratch", lambda r: r.spec.method != "scratch"),
        ("method=ful", lambda r: False),
        ("bundled:self", lambda r: "self" in r.spec.backbone.name),
        ("backbone:SELF method:full", lambda r: "self" in r.spec.backbone.name and r.spec.method == "full"),
        ('backbone="bundled:supervised"', lambda r: r.spec.backbone.name == "bundled:supervised"),
        ("paradigm:self state:done dataset:dermoscopy", lambda r: "self" in r.spec.backbone.name),
        ("seed:1", lambda r: r.spec.seed == 1),
        ("seed>=1", lambda r: r.spec.seed == 1),
        ("epoch=4", lambda r: True),
        ("epoch!=4", lambda r: False),
        ("acc>0.7", lambda r: r.last["test_accuracy"] > 0.7),
        ("acc > 0.7", lambda r: r.last["test_accuracy"] > 0.7),
        ("accuracy<=.7", lambda r: r.last["test_accuracy"] <= 0.7),
        ("auroc<0.8", lambda r: r.last["test_auroc"] < 0.8),
        ("ece<0.045", lambda r: r.last["test_ece"] < 0.045),
        ("cka>0.9", lambda r: r.last["linear_cka_cls"] > 0.9),
        ("cka_feat<0.5", lambda r: r.last["linear_cka_feat"] < 0.5),
        ("debiased_cka>0.5", lambda r: r.last["debiased_cka_cls"] > 0.5),
        ("knn>0.5 full", lambda r: r.last["origin_knn"] > 0.5 and r.spec.method == "full"),
    ],
)
def test_what_a_filter_leaves(text: str, is_so: object) -> None:
    expected = _ids(is_so)
    found = [each for each in _matching(text) if each != "run-x"]
    assert found == expected


def test_equal_is_equal_in_the_decimals_that_are_shown() -> None:
    known = KnownRuns.of(_snapshot([_record(RECORDS[0].spec, test_accuracy=0.81249)]))
    assert _matching("acc=0.812", known) and not _matching("acc!=0.812", known)
    assert _matching("acc>0.812", known) and not _matching("acc=0.813", known)


@pytest.mark.parametrize("value", [None, math.nan])
def test_a_run_without_the_figure_does_not_match(value: float | None) -> None:
    known = KnownRuns.of(_snapshot([_record(RECORDS[0].spec, test_accuracy=value)]))
    for text in ("acc>0", "acc<2", "acc!=0.5", "acc=0"):
        assert not _matching(text, known), text


def test_a_damaged_run_has_its_name_and_state_only() -> None:
    assert _matching("state:damaged") == _matching("run-x") == ["run-x"]
    assert "run-x" not in _matching("-state:damaged") and "run-x" not in _matching("-method:full")
    assert "run-x" not in _matching("acc>0") and "run-x" not in _matching("seed:0")


@pytest.mark.parametrize(
    ("text", "says", "is_unfinished"),
    [
        ("metod:full", "no field metod; did you mean method:full?", False),
        ("eec<0.1", "no field eec; did you mean ece<0.1?", False),
        ("acuracy:0.9", "no field acuracy; did you mean accuracy>0.8?", False),
        ("metod:scratch", "no field metod; did you mean method:scratch?", False),
        ("wxyz:1", "no field wxyz; try acc, ece, knn, method, backbone …", False),
        ("ac", "go on: acc>0.8", True),
        ("full meth", "go on: method:full", True),
        ("method:", "which method? such as method:full", True),
        ("backbone:,", "which backbone? such as backbone:supervised", True),
        ("acc>", "a number comes after acc>, such as acc>0.8", True),
        ("acc>x full", "a number comes after acc>, such as acc>0.8", False),
        ("acc>inf", "a number comes after acc>, such as acc>0.8", False),
        ("acc:0.8", "acc is a figure: write acc>0.8", False),
        ("-acc>0.8", "no - before a figure: turn the sign, as in acc<=0.8", False),
        ("method>full", "method is no figure: write method:full", False),
        ("-", "after - comes what to leave out: -method:scratch", True),
        ('backbone="a b', 'close the quote: backbone="a name"', True),
    ],
)
def test_what_is_wrong_is_said_with_what_mends_it(text: str, says: str, is_unfinished: bool) -> None:
    assert read_filter(text, KNOWN) == Problem(says, is_unfinished)


def test_another_task_has_another_score() -> None:
    multilabel = [record.with_(provenance=Provenance(task="multilabel", n_classes=3)) for record in RECORDS]
    known = KnownRuns.of(_snapshot(multilabel))
    assert _matching("auroc>0.5", known)
    assert isinstance(read_filter("acc>0.5", known), Problem)


@pytest.mark.parametrize(
    "text", [":", ",", '"', '""', "=", ">", "<3", "é:1", "-:", "a=b=c", "\x1b[31m", "[/]", "acc>>1", "  "]
)
def test_no_text_is_an_exception(text: str) -> None:
    assert isinstance(read_filter(text, KNOWN), Filter | Problem)


@pytest.mark.parametrize("name", ["a b", 'say "hi"', "a,b", "x=1", "tab\there", "timm:Vit", "[/]", "-x", "漢 字"])
def test_a_whole_name_finds_its_runs_whatever_is_in_it(name: str) -> None:
    specs = [spec for other in (name, f"{name}2") for spec in run_specs(study_of((other,), seeds=1, epochs=4))]
    records = [made_record(spec, None, -1) for spec in specs]
    known = KnownRuns.of(_snapshot(records))
    expected = [record.run_id for record in records if record.spec.backbone.name == name]
    assert _matching(exactly("backbone", name), known) == expected
    assert _matching(f"full {exactly('backbone', name)}", known) == expected[:1]


def test_the_last_good_filter_stays_without_the_beginnings_of_what_is_typed() -> None:
    assert in_force("full acc>0.8", "", KNOWN) == "full acc>0.8"
    assert in_force("full acc>0.8x", "full acc>0.8", KNOWN) == "full acc>0.8"
    assert in_force("full acc", "full a", KNOWN) == "full"
    assert in_force("full metod:", "full metod", KNOWN) == "full"
    assert in_force("metod:x acc>1", "full", KNOWN) == "full"


class TestOrder:
    def test_missing_comes_last_in_either_direction_and_ties_keep_the_order_of_the_study(self) -> None:
        values = {"a": 1.0, "b": None, "c": 2.0, "d": 1.0, "e": math.nan}
        assert in_order(tuple(values), values.get, False) == ("a", "d", "c", "b", "e")
        assert in_order(tuple(values), values.get, True) == ("c", "a", "d", "b", "e")

    def test_every_column_sorts_by_its_full_values(self) -> None:
        assert set(sort_values(KNOWN)) == {column.title for column in runs.columns(RECORDS)}
        close = [_record(RECORDS[i].spec, test_accuracy=0.8 + 1e-6 * (i == 0)) for i in range(2)]
        sheet = runs.sheet(_snapshot(close), Selection(runs_order=Order("accuracy")))
        assert [row.key for row in sheet.rows] == [close[1].run_id, close[0].run_id]
        assert {row.cells[6].text for row in sheet.rows} == {"0.800"}

    def test_damaged_runs_stay_last(self) -> None:
        for is_descending in (False, True):
            order = Order("backbone", is_descending)
            assert runs.sheet(SNAPSHOT, Selection(runs_order=order)).rows[-1].key == "run-x"

    def test_states_go_as_a_run_goes(self) -> None:
        states = [State.FAILED, State.DONE, State.QUEUED, State.RUNNING]
        records = [record.with_(state=state) for record, state in zip(RECORDS, states, strict=False)]
        rows = runs.sheet(_snapshot(records), Selection(runs_order=Order("state"))).rows
        assert [row.cells[-1].text.split()[1] for row in rows] == ["queued", "running", "done", "failed"]

    def test_a_step_goes_through_the_columns_and_back_to_the_study(self) -> None:
        order = Order()
        seen = []
        for _ in range(3):
            order = order.stepped(("a", "b"), 1)
            seen.append(order.column)
        assert seen == ["a", "b", ""] and Order().stepped(("a", "b"), -1).column == "b"
        assert Order("a").reversed().stepped(("a", "b"), 1) == Order("b", True)
        assert Order().reversed() == Order()
        assert Order("a").chosen("a") == Order("a", True) and Order("a", True).chosen("b") == Order("b")

    def test_the_mark_changes_no_width(self) -> None:
        plain = runs.sheet(SNAPSHOT)
        for column in plain.columns:
            sheet = runs.sheet(SNAPSHOT, Selection(runs_order=Order(column.title), run_filter="full"))
            assert sheet.widths == plain.widths
            assert [each.title for each in sheet.columns if each.mark == "▲"] == [column.title]

    def test_runs_are_stepped_through_as_they_are_shown_or_as_they_are_marked(self) -> None:
        chosen = Selection(run_filter="full", runs_order=Order("accuracy", True))
        by_accuracy = sorted(_matching("full"), key=lambda run_id: -SNAPSHOT.record(run_id).last["test_accuracy"])  # type: ignore[union-attr, operator]
        assert list(run_ids_in_order(SNAPSHOT, chosen)) == by_accuracy
        everything = run_ids_in_order(SNAPSHOT, Selection())
        assert everything == tuple(record.run_id for record in RECORDS)
        outside = _matching("scratch")[0]
        marks = frozenset({outside, by_accuracy[0], "gone"})
        assert set(run_ids_in_order(SNAPSHOT, Selection(run_filter="full", marked=marks))) == {outside, by_accuracy[0]}
        assert run_ids_in_order(SNAPSHOT, Selection(marked=frozenset({"gone"}))) == everything

    def test_a_filter_that_cannot_be_read_any_more_leaves_all_runs(self) -> None:
        assert run_ids_in_order(SNAPSHOT, Selection(run_filter="rsa>0.5")) == run_ids_in_order(SNAPSHOT, Selection())


class TestGroups:
    def _groups(self, snapshot: Snapshot, **chosen: object) -> tuple[run_groups.Group, ...]:
        known = KnownRuns.of(snapshot)
        return run_groups.groups_of(known.runs, known, Selection(**chosen))  # type: ignore[arg-type]

    def test_only_runs_that_are_done_count_and_the_row_says_how_many(self) -> None:
        full = [record for record in RECORDS if record.spec.method == "full"][:2]
        records = [full[0], full[1].with_(state=State.RUNNING, last={"test_accuracy": 0.01})]
        groups = self._groups(_snapshot(records), runs_by="backbone and method")
        sheet = run_groups.sheet(groups, KnownRuns.of(_snapshot(records)), Selection(runs_by="backbone and method"))
        assert [cell.text for cell in sheet.rows[0].cells[:4]] == [
            "bundled:supervised".partition(":")[2], "full", "1/2", f"{full[0].last['test_accuracy']:.3f} ± –",
        ]  # fmt: skip

    def test_a_mean_of_fewer_runs_than_are_done_says_so(self) -> None:
        records = [_record(RECORDS[0].spec), _record(RECORDS[1].spec, origin_knn=None)]
        snapshot, chosen = _snapshot(records), Selection(runs_by="backbone")
        sheet = run_groups.sheet(self._groups(snapshot, runs_by="backbone"), KnownRuns.of(snapshot), chosen)
        assert sheet.rows[0].cells[-1].text.endswith(" ± – (1)") and sheet.rows[0].cells[1].text == "2/2"

    def test_nothing_done_has_no_mean(self) -> None:
        records = [made_record(record.spec, None, -1) for record in RECORDS[:2]]
        snapshot, chosen = _snapshot(records), Selection(runs_by="method")
        sheet = run_groups.sheet(self._groups(snapshot, runs_by="method"), KnownRuns.of(snapshot), chosen)
        assert [cell.text for cell in sheet.rows[0].cells[1:]] == ["0/2", "–", "–", "–", "–"]

    def test_groups_sort_by_their_full_means(self) -> None:
        found = self._groups(SNAPSHOT, runs_by="method", runs_order=Order("accuracy"))
        means = [group.figures["test_accuracy"].mean for group in found]
        assert means == sorted(means, key=float) and len(means) == 3  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("by", "pools"), [("backbone", "methods"), ("method", "backbones"), ("backbone and method", "")]
    )
    def test_groups_that_pool_more_than_seeds_say_so(self, by: str, pools: str) -> None:
        group = self._groups(SNAPSHOT, runs_by=by)[0]
        lines = run_groups.detail(group, KNOWN, by, 200)  # type: ignore[arg-type]
        text = "\n".join("".join(span.text for span in each) for each in lines)
        assert ("pool" in text) == bool(pools) and pools in text
