"""Which column holds what; and the tables that could be read in two ways, which have to be asked about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from engine.data.layouts.column_guess import guess_columns, image_column, may_hold_labels
from engine.data.layouts.file_index import FileIndex
from engine.data.layouts.labelled_table import Columns, Source
from engine.data.options import DataOptions
from engine.data.table import Row, Table
from engine.errors import DataError, StudyError

DEFAULTS = DataOptions()

N = 12
NAMES = [f"scan_{n}" for n in range(N)]
CLASSES = ["mild", "severe", "none"] * 4


def table_of(name: str = "t.csv", **columns: Sequence[object]) -> Table:
    """A table by its columns; shorter ones are repeated."""
    n_rows = max(map(len, columns.values()))
    rows = [{name: str(cells[row % len(cells)]) for name, cells in columns.items()} for row in range(n_rows)]
    return Table(Path(name), tuple(columns), tuple(Row(line, cells) for line, cells in enumerate(rows, start=2)))


@pytest.fixture
def index(tmp_path: Path) -> FileIndex:
    return index_of(tmp_path, *(f"images/{name}.png" for name in NAMES))


def index_of(root: Path, *paths: str) -> FileIndex:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return FileIndex(root, follow_links=False)


def guess(index: FileIndex, options: DataOptions = DEFAULTS, **columns: Sequence[object]) -> Columns:
    return guess_columns([Source(table_of(**columns))], index, options)


def asked(index: FileIndex, options: DataOptions = DEFAULTS, **columns: Sequence[object]) -> str:
    """What the user is asked in place of a guess."""
    with pytest.raises(DataError) as caught:
        guess(index, options, **columns)
    assert caught.value.fix
    return caught.value.problem


# Images


@pytest.mark.parametrize("name", ["image", "id", "Befund-Nr", ""])
def test_the_image_column_is_found_by_its_cells(index: FileIndex, name: str) -> None:
    assert guess(index, age=range(N), **{name: NAMES}, label=CLASSES).image == name


def test_an_id_that_is_not_the_image(tmp_path: Path) -> None:
    # Both name images that exist, and not the same: numbers in the order of the table, and numbers of the files.
    index = index_of(tmp_path, *(f"{n}.png" for n in range(1, N + 1)))
    numbers, files = range(1, N + 1), [f"{n}.png" for n in range(N, 0, -1)]
    assert guess(index, id=numbers, image=files, label=CLASSES).image == "image"
    assert guess(index, image=[n.removesuffix(".png") for n in files], id=numbers, label=CLASSES).image == "image"
    problem = 'several columns could name the images: "id", "scan"'
    assert asked(index, id=numbers, scan=files, label=CLASSES) == problem
    assert guess(index, DataOptions(image="scan"), id=numbers, scan=files, label=CLASSES).image == "scan"


def test_the_unnamed_index_of_a_data_frame_is_not_the_image(tmp_path: Path) -> None:
    index = index_of(tmp_path, *(f"{n}.png" for n in range(N)))
    shuffled = [(5 * n) % N for n in range(N)]
    assert guess(index, **{"": range(N)}, file=shuffled, label=CLASSES).image == "file"
    assert asked(index, **{"": range(N)}, number=shuffled, label=CLASSES) == (
        'several columns could name the images: "", "number"'
    )


def test_columns_that_name_the_same_images_are_no_question(index: FileIndex) -> None:
    assert guess(index, id=NAMES, path=[f"images/{name}.png" for name in NAMES], label=CLASSES).image in ("id", "path")


def test_two_views_of_one_patient(tmp_path: Path) -> None:
    index = index_of(tmp_path, *(f"{n}_{view}.png" for n in range(N) for view in ("front", "side")))
    views = {view: [f"{n}_{view}.png" for n in range(N)] for view in ("front", "side")}
    assert asked(index, **views, label=CLASSES) == 'several columns could name the images: "front", "side"'
    assert guess(index, DataOptions(image="side"), **views, label=CLASSES).image == "side"


def test_an_image_and_its_mask(tmp_path: Path) -> None:
    index = index_of(tmp_path, *(f"{kind}/{n}{kind[0]}.png" for n in range(N) for kind in ("image", "mask")))
    images, masks = ([f"{n}{kind}.png" for n in range(N)] for kind in "im")
    assert guess(index, mask=masks, image=images, label=CLASSES).image == "image"
    assert asked(index, mask=masks, id=images, label=CLASSES) == 'several columns could name the images: "mask", "id"'


def test_numbers_of_classes_and_patients_are_names_of_images_too(tmp_path: Path) -> None:
    index = index_of(tmp_path, *(f"{n}.png" for n in range(N)))
    columns = guess(index, label=[0, 1, 2], patient_id=[n // 3 for n in range(N)], image=range(N))
    assert (columns.image, columns.label, columns.group) == ("image", ("label",), "patient_id")
    assert guess(index, patient_id=[n // 3 for n in range(N)], label=[0, 1, 2], nr=range(N)).image == "nr"


def test_missing_images_do_not_make_a_column_of_numbers_the_images(tmp_path: Path) -> None:
    index = index_of(tmp_path, *(f"{n}.png" for n in range(N)))
    for name in ("file", "scan"):
        problem = f'several columns could name the images: "nr", "{name}"'
        assert asked(index, nr=range(N), **{name: [f"scan_{n}.png" for n in range(N)]}, label=CLASSES) == problem
    assert asked(index, nr=range(N), image=NAMES, label=CLASSES) == (
        'several columns could name the images: "nr", "image"'
    )


def test_a_column_of_which_most_images_are_missing_is_taken_by_its_name(index: FileIndex) -> None:
    columns = guess(index, image=[NAMES[0], *(f"gone_{n}" for n in range(N))], label=CLASSES)
    assert columns.image == "image"  # so that each missing one is named
    shown = 'no column names images of the folder; found nr, label (first cells: "scan_0", "gone_0", "gone_1")'
    assert asked(index, nr=[NAMES[0], *(f"gone_{n}" for n in range(N))], label=CLASSES) == shown


def test_a_class_that_is_called_like_an_image_is_not_the_image(tmp_path: Path) -> None:
    index = index_of(tmp_path, "mild.png", "other.png")
    assert asked(index, image=[f"x{n}" for n in range(N)], label=["mild", "severe"]).startswith(
        "several columns could name"
    )
    assert asked(index, nr=[f"x{n}" for n in range(N)], label=["mild", "severe", "none"]) == (
        'no column names images of the folder; found nr, label (first cells: "x0", "x1", "x2")'
    )


def test_a_table_without_rows_has_its_image_column_by_name(index: FileIndex) -> None:
    table = Table(Path("t.csv"), ("nr", "filename", "label"), ())
    assert image_column(table, index) == "filename"
    with pytest.raises(DataError, match="no column names images of the folder; found nr, label"):
        image_column(Table(Path("t.csv"), ("nr", "label"), ()), index)


def test_a_path_out_of_the_folder_counts_as_an_image_so_that_its_line_is_told(index: FileIndex) -> None:
    assert guess(index, path=[f"../../etc/{n}" for n in range(N)], label=CLASSES).image == "path"


# Labels


@pytest.mark.parametrize("name", ["label", "Label", "Class Name", "dx", "finding_labels", "target"])
def test_labels_by_their_name(index: FileIndex, name: str) -> None:
    columns = guess(index, image=NAMES, sex=["m", "f"], **{name: CLASSES}, smoker=[0, 1], site=["a", "b", "c"])
    assert (columns.label, columns.notes) == ((name,), ())


def test_two_names_for_one_thing_are_no_question(index: FileIndex) -> None:
    numbers = [["mild", "severe", "none"].index(name) for name in CLASSES]
    assert guess(index, image=NAMES, dx=CLASSES, label=numbers).label == ("label",)


def test_two_columns_named_like_labels_that_differ(index: FileIndex) -> None:
    benign = [int(name == "severe") for name in CLASSES]
    assert asked(index, image=NAMES, diagnosis=CLASSES, target=benign) == (
        "several columns could be the labels; found image, diagnosis, target"
    )
    assert guess(index, DataOptions(label="target"), image=NAMES, diagnosis=CLASSES, target=benign).label == ("target",)


def test_the_only_column_that_can_be_labels(index: FileIndex) -> None:
    columns = guess(index, image=NAMES, Befund=CLASSES, weight=[f"{n}.5" for n in range(N)])
    assert columns.label == ("Befund",)
    assert columns.notes == ('labels are taken from the column "Befund" (data.label)',)


def test_a_second_column_of_few_values_has_to_be_asked_about(index: FileIndex) -> None:
    problem = "several columns could be the labels; found image, Befund, sex"
    assert asked(index, image=NAMES, Befund=CLASSES, sex=["m", "f"]) == problem


@pytest.mark.parametrize("name", ["sex", "patientSex", "age_group", "Smoker", "view position", "hospital", ""])
def test_what_describes_a_person_or_an_image_is_no_label(index: FileIndex, name: str) -> None:
    shown = f"found image, {name}"
    assert asked(index, image=NAMES, **{name: ["m", "f"]}) == (
        f'no column "label", and "{name}" is not taken for it unasked; {shown}'
    )
    assert guess(index, DataOptions(label=name or None, image="image"), image=NAMES, **{name or "label": CLASSES})


def test_a_misspelt_column_is_named(index: FileIndex) -> None:
    assert asked(index, id=NAMES, path=NAMES, lable=range(N)) == (
        'no column "label"; found id, path, lable; did you mean "lable"?'
    )


def test_an_age_is_no_label(index: FileIndex) -> None:
    assert asked(index, image=NAMES, age=[40, 50, 60]).startswith('no column "label", and "age" is not taken')
    assert asked(index, image=NAMES, years=[40, 50, 60], status=["a", "b"]).startswith("several columns could be")


def test_labels_by_content_or_class_folders(tmp_path: Path) -> None:
    index = index_of(tmp_path, *(f"{name}/{n}.png" for n, name in enumerate(CLASSES)))
    assert asked(index, image=range(N), Befund=["a", "b"]) == (
        'the labels could be the column "Befund", or the folders; found image, Befund'
    )
    assert guess(index, image=range(N), label=["a", "b"]).label == ("label",)


# One-hot and findings


def one_hot(*names: str) -> dict[str, list[int]]:
    return {name: [int(row % len(names) == number) for row in range(N)] for number, name in enumerate(names)}


def test_one_hot_columns(index: FileIndex) -> None:
    assert guess(index, image=NAMES, **one_hot("MEL", "NV", "BCC")).label == ("MEL", "NV", "BCC")
    assert guess(index, image=NAMES, age=range(N), sex=["m", "f"], **one_hot("MEL", "NV")).label == ("MEL", "NV")


@pytest.mark.parametrize("name", ["smoker", "sex", "diabetes", "ulcerated"])
def test_a_binary_column_beside_one_hot_ones(index: FileIndex, name: str) -> None:
    extra = {name: [1, 1, 0, 0]}
    problem = f"several columns could be the labels; found image, {name}, MEL, NV, BCC"
    assert asked(index, image=NAMES, **extra, **one_hot("MEL", "NV", "BCC")) == problem
    columns = guess(index, DataOptions(label=("MEL", "NV", "BCC")), image=NAMES, **extra, **one_hot("MEL", "NV", "BCC"))
    assert columns.label == ("MEL", "NV", "BCC")


@pytest.mark.parametrize("names", [("male", "female"), ("left", "right"), ("OD", "OS")])
def test_one_hot_columns_that_are_no_labels(index: FileIndex, names: tuple[str, str]) -> None:
    assert asked(index, image=NAMES, **one_hot(*names)).startswith("several columns could be the labels")
    assert asked(index, image=NAMES, Befund=CLASSES, **one_hot(*names)).startswith("several columns could be")


def test_one_hot_columns_beside_another_candidate(index: FileIndex) -> None:
    assert asked(index, image=NAMES, Befund=CLASSES, **one_hot("a", "b")).startswith("several columns could be")


def test_findings_are_taken_if_the_user_says_so(index: FileIndex) -> None:
    findings = {"Mass": [1, 0, 1], "Edema": [1, 1, 0, -1], "Nodule": ["", 0, 1, 1]}
    assert asked(index, image=NAMES, **findings) == (
        "several columns could be the labels; found image, Mass, Edema, Nodule"
    )
    columns = guess(index, DataOptions(task="multilabel"), image=NAMES, **findings)
    assert columns.label == ("Mass", "Edema", "Nodule")
    assert columns.notes == ("findings are taken from Mass Edema Nodule (data.label)",)
    with_smoker = guess(index, DataOptions(task="multilabel"), image=NAMES, smoker=[0, 1], **findings)
    assert with_smoker.label == columns.label
    assert with_smoker.notes == ("findings are taken from Mass Edema Nodule (data.label), not from smoker",)


def test_grades_are_never_one_hot(index: FileIndex) -> None:
    assert asked(index, DataOptions(task="ordinal"), image=NAMES, **one_hot("a", "b")).startswith("several columns")


def test_findings_in_one_column_of_many_different_values(index: FileIndex) -> None:
    cells = [f"Mass|F{n}" for n in range(N)]
    assert guess(index, image=NAMES, Befunde=cells).label == ("Befunde",)
    assert asked(index, image=NAMES, Befunde=cells, other=cells).startswith("several columns could be the labels")


# Groups and splits


@pytest.mark.parametrize("name", ["patient_id", "PatientID", "Patient", "lesion_id", "subject", "Patient No"])
def test_groups_by_their_name(index: FileIndex, name: str) -> None:
    assert guess(index, image=NAMES, **{name: ["p1", "p2"]}, label=CLASSES).group == name


def test_the_patient_comes_before_the_lesion(index: FileIndex) -> None:
    columns = {"image": NAMES, "lesion_id": NAMES, "patient_id": ["p1", "p2"], "label": CLASSES}
    assert guess(index, **columns).group == "patient_id"
    assert guess(index, DataOptions(group="lesion_id"), **columns).group == "lesion_id"
    assert guess(index, DataOptions(group=""), **columns).group is None


def test_the_image_is_not_its_own_group(index: FileIndex) -> None:
    assert guess(index, case=NAMES, label=CLASSES).group is None


def test_the_label_is_no_group(index: FileIndex) -> None:
    columns = guess(index, DataOptions(label="lesion"), image=NAMES, lesion=CLASSES)
    assert (columns.label, columns.group) == (("lesion",), None)


@pytest.mark.parametrize("name", ["split", "Set", "phase"])
def test_splits_by_their_values(index: FileIndex, name: str) -> None:
    assert guess(index, image=NAMES, **{name: ["Train", "validation", "TEST"]}, label=CLASSES).split == name


def test_a_split_that_is_always_train_counts_by_its_name_only(index: FileIndex) -> None:
    assert guess(index, image=NAMES, split=["train"], label=CLASSES).split == "split"
    assert guess(index, image=NAMES, phase=["train"], label=CLASSES).split is None


@pytest.mark.parametrize("name", ["fold", "dataset", "usage"])
def test_a_column_of_other_values_is_no_split(index: FileIndex, name: str) -> None:
    assert guess(index, image=NAMES, **{name: [0, 1, 2]}, label=CLASSES).split is None


@pytest.mark.parametrize("odd", ["", "holdout", "0"])
def test_splits_are_not_drawn_where_a_column_names_some(index: FileIndex, odd: str) -> None:
    columns = {"image": NAMES, "split": ["train", "test", odd], "label": CLASSES}
    assert asked(index, **columns) == f'column "split" has the value "{odd}", which is no split'
    assert guess(index, DataOptions(split=""), **columns).split is None


def test_two_columns_of_splits(index: FileIndex) -> None:
    columns = {"image": NAMES, "split": ["train", "test"], "official": ["test", "train"], "label": CLASSES}
    assert asked(index, **columns) == 'several columns could be the splits: "split", "official"'
    assert guess(index, DataOptions(split="official"), **columns).split == "official"


def test_a_column_of_splits_and_a_table_a_split(index: FileIndex) -> None:
    tables = [table_of(name, image=NAMES, split=["test"], label=CLASSES) for name in ("train.csv", "test.csv")]
    sources = [Source(tables[0], "train"), Source(tables[1], "test")]
    assert guess_columns(sources, index, DataOptions()).split is None  # each table says it already
    with pytest.raises(StudyError) as caught:
        guess_columns(sources, index, DataOptions(split="split"))
    assert str(caught.value).startswith('data.split = "split": train.csv test.csv are the tables of one split each\n')


def test_a_column_that_one_of_the_tables_lacks_is_no_candidate(index: FileIndex) -> None:
    tables = [
        table_of("train.csv", image=NAMES, Befund=CLASSES, stage=["I", "II"]),
        table_of("test.csv", image=NAMES, Befund=CLASSES),
    ]
    sources = [Source(tables[0], "train"), Source(tables[1], "test")]
    assert guess_columns(sources, index, DataOptions()).label == ("Befund",)


# Tables of something else


@pytest.mark.parametrize(
    ("columns", "may"),
    [
        ({"id": NAMES, "caption": ["a red circle", "a blue square"]}, False),
        ({"id": NAMES, "sex": ["m", "f"], "age": [40, 50]}, False),
        ({"id": NAMES, "weight": range(N)}, False),
        ({"id": NAMES, "lable": range(N)}, True),
        ({"id": NAMES, "label": range(N)}, True),
        ({"id": NAMES, "Befund": CLASSES}, True),
        ({"id": NAMES, "Befunde": [f"a|{n}" for n in range(N)]}, True),
    ],
)
def test_tables_that_hold_no_labels(columns: dict[str, Sequence[object]], may: bool) -> None:
    assert may_hold_labels(table_of(**columns)) is may
