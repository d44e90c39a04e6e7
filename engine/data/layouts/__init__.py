"""The table of dataset layouts: one file and one line for each; knows nothing of what lies inside them."""

from __future__ import annotations

from engine.data.layouts.aptos2019 import APTOS2019
from engine.data.layouts.chexpert import CHEXPERT
from engine.data.layouts.dicom_folder import DICOM
from engine.data.layouts.folder import FOLDER
from engine.data.layouts.ham10000 import HAM10000
from engine.data.layouts.imagenet import IMAGENET
from engine.data.layouts.isic2018 import ISIC2018
from engine.data.layouts.layout import Entry, Layout, Listing
from engine.data.layouts.medmnist import MEDMNIST
from engine.data.layouts.tabular import CSV

__all__ = ["LAYOUTS", "Entry", "Layout", "Listing"]

# From the most particular to the most general: the first that recognises a folder reads it.
LAYOUTS: dict[str, Layout] = {
    layout.name: layout for layout in (ISIC2018, HAM10000, APTOS2019, CHEXPERT, MEDMNIST, IMAGENET, DICOM, CSV, FOLDER)
}
