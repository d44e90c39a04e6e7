"""The layout `medmnist`: an `.npz` file with images and labels of train, val and test; knows no other layout.

Tasks and class names of the twelve 2-D sets are those that MedMNIST publishes; any other file of the same form is read
with numbers as class names.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.data.layouts.layout import Entry, Layout, Listing, list_folder, refuse_options
from engine.data.manifest import SPLITS
from engine.data.npz import NpzFile, row_path
from engine.data.options import DataOptions, Task
from engine.errors import DataError

_ORGANS = (
    "bladder", "femur-left", "femur-right", "heart", "kidney-left", "kidney-right", "liver", "lung-left", "lung-right",
    "pancreas", "spleen",
)  # fmt: skip
CLASSES: dict[str, tuple[str, ...]] = {
    "pathmnist": (
        "adipose", "background", "debris", "lymphocytes", "mucus", "smooth muscle", "normal colon mucosa",
        "cancer-associated stroma", "colorectal adenocarcinoma epithelium",
    ),
    "chestmnist": (
        "atelectasis", "cardiomegaly", "effusion", "infiltration", "mass", "nodule", "pneumonia", "pneumothorax",
        "consolidation", "edema", "emphysema", "fibrosis", "pleural", "hernia",
    ),
    "dermamnist": (
        "actinic keratoses and intraepithelial carcinoma", "basal cell carcinoma", "benign keratosis-like lesions",
        "dermatofibroma", "melanoma", "melanocytic nevi", "vascular lesions",
    ),
    "octmnist": ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"),
    "pneumoniamnist": ("normal", "pneumonia"),
    "retinamnist": ("0", "1", "2", "3", "4"),
    "breastmnist": ("malignant", "normal, benign"),
    "bloodmnist": (
        "basophil", "eosinophil", "erythroblast",
        "immature granulocytes(myelocytes, metamyelocytes and promyelocytes)", "lymphocyte", "monocyte", "neutrophil",
        "platelet",
    ),
    "tissuemnist": (
        "Collecting Duct, Connecting Tubule", "Distal Convoluted Tubule", "Glomerular endothelial cells",
        "Interstitial endothelial cells", "Leukocytes", "Podocytes", "Proximal Tubule Segments", "Thick Ascending Limb",
    ),
    "organamnist": _ORGANS,
    "organcmnist": _ORGANS,
    "organsmnist": _ORGANS,
}  # fmt: skip
_ORDINAL = ("retinamnist",)


def npz_path(root: Path) -> Path | None:
    """The file itself, or the only one of its kind in a folder."""
    if root.is_file():
        return root if root.suffix == ".npz" else None
    found = [path for path in list_folder(root)[1] if path.suffix == ".npz"] if root.is_dir() else []
    return found[0] if len(found) == 1 else None


def _recognises(root: Path) -> bool:
    path = npz_path(root)
    if path is None or root.is_file():
        return path is not None
    try:  # any other archive may lie beside images
        return any(f"{split}_images" in NpzFile(path).names for split in SPLITS)
    except DataError:
        return not list_folder(root)[0]


def _read(root: Path, options: DataOptions) -> Listing:
    refuse_options(MEDMNIST.name, options, "table", "image", "label", "split", "group")
    path = npz_path(root)
    if path is None:
        raise DataError(str(root), f"no images under it (looked for {MEDMNIST.looks_for})", "give the .npz file")
    archive = NpzFile(path)
    splits = [split for split in SPLITS if f"{split}_images" in archive.names]
    if not splits:
        problem = f"no train_images in it; found {', '.join(archive.names) or 'nothing'}"
        raise DataError(str(path), problem, "give a file with {train,val,test}_images and _labels")
    labels = {split: _labels(path, archive, split) for split in splits}
    if len({each.shape[1] for each in labels.values()}) > 1:
        columns = ", ".join(f"{split} {each.shape[1]}" for split, each in labels.items())
        raise DataError(str(path), f"labels have different numbers of columns ({columns})", "download the file again")
    known = CLASSES.get(path.stem.lower().partition("_")[0])
    task = options.task or _task(path, labels)
    if (task == "multilabel") != _is_multilabel(labels):
        columns = max(each.shape[1] for each in labels.values())
        problem = f'labels have {columns} columns, which does not fit data.task = "{task}"'
        raise DataError(str(path), problem, "leave data.task out")
    entries: list[Entry] = []
    if task == "multilabel":
        n_classes = labels[splits[0]].shape[1]
        classes = known if known and len(known) == n_classes else tuple(str(number) for number in range(n_classes))
        for split in splits:
            _refuse_out_of_range(path, split, labels[split], 2)
            for row, values in enumerate(labels[split].tolist()):
                name = row_path(f"{split}_images", row)
                entries.append(Entry(name, name, tuple(values), split))
        return Listing(classes, tuple(entries), task=task)
    top = max((int(each.max()) for each in labels.values() if len(each)), default=0)
    n_images = sum(len(each) for each in labels.values())  # every class below the highest label needs some
    classes = known or tuple(str(number) for number in range(min(top + 1, max(n_images, 1))))
    for split in splits:
        _refuse_out_of_range(path, split, labels[split], len(classes))
        for row, (value,) in enumerate(labels[split].tolist()):
            name = row_path(f"{split}_images", row)
            entries.append(Entry(name, name, classes[value], split))
    return Listing(classes, tuple(entries), task=task)


def _labels(path: Path, archive: NpzFile, split: str) -> NDArray[np.int64]:
    """`(n, n_columns)` of a split whose images fit them."""
    shape, dtype = (header := archive.header(f"{split}_images")).shape, header.dtype
    if dtype != np.uint8 or not (len(shape) == 3 or (len(shape) == 4 and shape[3] == 3)):
        what = "3-D volumes" if dtype == np.uint8 and len(shape) in (4, 5) else f"{dtype} {shape}"
        problem = f"{split}_images are {what}; need uint8 (n, height, width) or (n, height, width, 3)"
        raise DataError(str(path), problem, "give one of the 2-D sets")
    if f"{split}_labels" not in archive.names:
        raise DataError(str(path), f"no {split}_labels in it", "download the file again")
    labels = archive.array(f"{split}_labels")
    if labels.ndim == 1:
        labels = labels[:, None]
    if labels.dtype.kind not in "iub" or labels.ndim != 2 or len(labels) != shape[0] or not labels.shape[1]:
        problem = f"{split}_labels are {labels.dtype} {labels.shape} for {shape[0]} images; need integers, one row each"
        raise DataError(str(path), problem, "download the file again")
    return labels.astype(np.int64)


def _is_multilabel(labels: dict[str, NDArray[np.int64]]) -> bool:
    return any(each.shape[1] > 1 for each in labels.values())


def _task(path: Path, labels: dict[str, NDArray[np.int64]]) -> Task:
    if _is_multilabel(labels):
        return "multilabel"
    return "ordinal" if path.stem.lower().startswith(_ORDINAL) else "single"


def _refuse_out_of_range(path: Path, split: str, labels: NDArray[np.int64], n: int) -> None:
    bad = np.argwhere((labels < 0) | (labels >= n))
    if len(bad):
        row, column = bad[0]
        problem = f"label {labels[row, column]} is out of range; need 0 to {n - 1}"
        raise DataError(f"{path} {split}_labels row {row}", problem, "correct it, or download the file again")


MEDMNIST = Layout(
    name="medmnist",
    looks_for="an .npz file with {train,val,test}_images and _labels",
    recognises=_recognises,
    read=_read,
)
