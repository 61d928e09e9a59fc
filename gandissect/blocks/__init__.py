"""What a section is made of: typed blocks that every renderer understands, so that no analyzer writes HTML.

    Section(
        "Mean colour",
        Text("The average over all samples."),
        Table(("R", "G", "B"), [(0.1, 0.2, -0.3)]),
        summary="The samples are bluish.",
    )

Images are uint8 [H, W, 3] (grids [N, H, W, 3]); :func:`to_uint8` makes them from float32 [N, C, H, W] in [-1, 1].
"""

from gandissect.blocks.base import (
    UNCHECKED,
    Block,
    Cell,
    Finding,
    Floats,
    Json,
    Pixels,
    Reference,
    Status,
    Trust,
    jsonable,
)
from gandissect.blocks.figures import Bar, Graph, Guide, Heatmap, Histogram, Line, Multiples, Node, Scatter, Series
from gandissect.blocks.pictures import Bar1, Card, Compare, Gallery, Image, ImageGrid, Overlay, Strip, to_uint8
from gandissect.blocks.section import Section
from gandissect.blocks.text import Code, Data, Fold, Html, Table, Tabs, Text, all_blocks, in_tabs

__all__ = [
    "UNCHECKED",
    "Bar",
    "Bar1",
    "Block",
    "Card",
    "Cell",
    "Code",
    "Compare",
    "Data",
    "Finding",
    "Floats",
    "Fold",
    "Gallery",
    "Graph",
    "Guide",
    "Heatmap",
    "Histogram",
    "Html",
    "Image",
    "ImageGrid",
    "Json",
    "Line",
    "Multiples",
    "Node",
    "Overlay",
    "Pixels",
    "Reference",
    "Scatter",
    "Section",
    "Series",
    "Status",
    "Strip",
    "Table",
    "Tabs",
    "Text",
    "Trust",
    "all_blocks",
    "in_tabs",
    "jsonable",
    "to_uint8",
]
