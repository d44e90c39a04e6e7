"""The table of dataset layouts: one file and one line for each; knows nothing of what lies inside them."""

from __future__ import annotations

from engine.data.layouts.folder import FOLDER
from engine.data.layouts.isic2018 import ISIC2018
from engine.data.layouts.layout import Entry, Layout, Listing

__all__ = ["LAYOUTS", "Entry", "Layout", "Listing"]

# From the most particular to the most general: the first that recognises a folder reads it.
LAYOUTS: dict[str, Layout] = {
    ISIC2018.name: ISIC2018,
    FOLDER.name: FOLDER,
}
