"""Label cells: classes, grades, one-hot, findings, and the line of every cell that is none of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from engine.data.layouts.label_reader import label_reader
from engine.data.options import DataOptions, Task
from engine.data.table import Row, Table
from engine.errors import DataError

DEFAULTS = DataOptions()

Labels = list[str | tuple[int, ...]]


def table_of(column_names: Sequence[str], *rows: Sequence[str], name: str = "t.csv") -> Table:
    cells = [dict(zip(column_names, row, strict=True)) for row in rows]
    return Table(Path(name), tuple(column_names), tuple(Row(line, one) for line, one in enumerate(cells, start=2)))


def one_column(*cells: str) -> Table:
    return table_of(["c"], *([cell] for cell in cells))


def read(
    table: Table, *, task: Task | None = None, options: DataOptions = DEFAULTS, others: Sequence[Table] = ()
) -> tuple[tuple[str, ...], Labels, str, tuple[str, ...]]:
    reader = label_reader([table, *others], table.columns, options, task)
    labels = [reader.label(table, row) for row in table.rows]
    return reader.classes, labels, reader.task, tuple(reader.warnings())


def refused(table: Table, *, task: Task | None = None) -> str:
    with pytest.raises(DataError) as caught:
        read(table, task=task)
    assert caught.value.fix
    return f"{caught.value.where}: {caught.value.problem}"


def test_classes_are_named_by_their_cells() -> None:
    assert read(one_column("b", "a", "b")) == (("a", "b"), ["b", "a", "b"], "single", ())


def test_numbers_are_ordered_by_their_value() -> None:
    assert read(one_column("10", "2", "0"))[0] == ("0", "2", "10")
    assert read(one_column("10", "2", "x"))[0] == ("10", "2", "x")
    assert read(one_column("1", "01", "0"))[0] == ("0", "01", "1")


@pytest.mark.parametrize("cell", ["", "NaN", "na", "N/A", "null"])
@pytest.mark.parametrize("task", [None, "single", "ordinal", "multilabel"])
def test_empty_label(cell: str, task: Task | None) -> None:
    assert refused(one_column("1", cell, "0"), task=task) == "t.csv line 3: label is empty"


def test_the_fix_names_the_classes() -> None:
    with pytest.raises(DataError) as caught:
        read(one_column("b", "", "a"))
    assert caught.value.fix == "give the image one of a b, or remove the line"


@pytest.mark.parametrize("cell", ["-1", "1.5", "mild", "1e0", "²", "inf"])
def test_grade_that_is_no_number(cell: str) -> None:
    problem = f't.csv line 4: grade "{cell}" is out of range; need a number from 0'
    assert refused(one_column("0", "1", cell), task="ordinal") == problem


def test_grades_of_two_tables_are_alike_whatever_wrote_them() -> None:
    other = table_of(["c"], ["10.0"], ["2."], ["0"], name="u.csv")
    classes, labels, task, _ = read(one_column("0", "2", "10"), task="ordinal", others=[other])
    assert (classes, labels, task) == (("0", "2", "10"), ["0", "2", "10"], "ordinal")


def test_grade_of_another_table_names_that_table() -> None:
    other = table_of(["c"], ["1"], ["high"], name="u.csv")
    with pytest.raises(DataError, match=r'^u\.csv line 3: grade "high" is out of range'):
        read(one_column("0", "1"), task="ordinal", others=[other])


def test_grades_are_in_one_column() -> None:
    table = table_of(["a", "b"], ["1", "0"])
    assert refused(table, task="ordinal") == "t.csv: grades come in one column, not in 2"


def test_one_hot() -> None:
    table = table_of(["a", "b", "c"], ["1", "0", "0"], ["0.0", "1.0", "0"], ["False", "false", "TRUE"])
    assert read(table) == (("a", "b", "c"), ["a", "b", "c"], "single", ())


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (["1", "1"], "2 ones (a b); a one-hot row has exactly one"),
        (["0", "0"], "no one; a one-hot row has exactly one"),
        (["", "1"], "label is empty"),
        (["2", "0"], 'a is "2"; one-hot values are 0 and 1'),
        (["-1", "1"], 'a is "-1"; one-hot values are 0 and 1'),
    ],
)
def test_one_hot_row_that_is_wrong_among_many(row: list[str], problem: str) -> None:
    table = table_of(["a", "b"], *[["1", "0"], ["0", "1"]] * 4, row)
    assert refused(table) == f"t.csv line 10: {problem}"


def test_one_hot_that_is_asked_for_is_not_doubted() -> None:
    table = table_of(["a", "b"], ["1", "1"], ["1", "1"])
    assert read(table)[2] == "multilabel"
    assert refused(table, task="single") == "t.csv line 2: 2 ones (a b); a one-hot row has exactly one"


def test_findings() -> None:
    table = table_of(["a", "b"], ["1", "0"], ["1", "1"], ["0", "0"], ["0.0", "1.0"])
    assert read(table) == (("a", "b"), [(1, 0), (1, 1), (0, 0), (0, 1)], "multilabel", ())


def test_one_hot_rows_are_findings_if_asked_for() -> None:
    assert read(table_of(["a", "b"], ["1", "0"], ["0", "1"]), task="multilabel")[1] == [(1, 0), (0, 1)]


@pytest.mark.parametrize(("policy", "value"), [("ignore", -1), ("zeros", 0), ("ones", 1)])
def test_uncertain_and_blank_are_what_the_user_says(policy: str, value: int) -> None:
    table = table_of(["a", "b"], ["-1", "1"], ["1", "-1.0"], ["", "1"])
    taken = "ignored" if policy == "ignore" else f"taken as {policy}"
    _, labels, _, warnings = read(table, options=DataOptions(uncertain=policy))  # type: ignore[arg-type]
    assert labels == [(value, 1), (1, value), (0, 1)]
    assert warnings == (
        f'2 labels are uncertain (-1): {taken} (data.uncertain = "{policy}")',
        '1 labels are blank: taken as zeros (data.blank = "zeros")',
    )
    _, labels, _, warnings = read(table, options=DataOptions(blank=policy))  # type: ignore[arg-type]
    assert labels == [(-1, 1), (1, -1), (value, 1)]
    assert warnings[1] == f'1 labels are blank: {taken} (data.blank = "{policy}")'


@pytest.mark.parametrize("cell", ["2", "yes", "0.5", "-2"])
def test_finding_that_is_none(cell: str) -> None:
    table = table_of(["a", "b"], ["1", "1"], ["1", cell], ["0", "0"])
    assert refused(table) == f't.csv line 3: b is "{cell}"; need 1, 0, -1 or blank'


def test_findings_in_one_column() -> None:
    table = one_column("Mass|Effusion", "No Finding", "Mass", "Effusion | Nodule")
    assert read(table) == (
        ("Effusion", "Mass", "Nodule"), [(1, 1, 0), (0, 0, 0), (0, 1, 0), (1, 0, 1)], "multilabel", (),
    )  # fmt: skip


def test_findings_in_one_column_without_any_divider() -> None:
    assert read(one_column("Mass", "none", "Nodule"), task="multilabel")[1] == [(1, 0), (0, 0), (0, 1)]
    assert read(one_column("Mass", "none", "Nodule"))[2] == "single"


def test_a_divider_in_a_class_name_if_the_user_says_so() -> None:
    assert read(one_column("a|b", "c"), task="single")[0] == ("a|b", "c")


def test_no_findings_at_all() -> None:
    assert refused(one_column("No Finding", "none"), task="multilabel") == 't.csv: no findings in column "c"'
