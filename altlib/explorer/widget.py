"""What people see of the explorer: a widget for notebooks, and a page that needs no kernel."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets as widgets
import numpy as np
import traitlets
from jinja2 import Template

from altlib.explorer.reading import Reader

SCRIPT = Path(__file__).with_name("explorer.js")
PAGE = Template(
    Path(__file__).with_name("explorer.html").read_text(encoding="utf-8"), autoescape=True
)


class Map(anywidget.AnyWidget):
    """The maps of `Reader.row` or `Reader.corpus`, and the cell that the user has pinned."""

    _esm = SCRIPT
    view: Any = traitlets.Dict().tag(sync=True)
    pinned: Any = traitlets.Dict(allow_none=True, default_value=None).tag(sync=True)


class Explorer(widgets.VBox):
    """Controls and maps for a notebook.

    Args:
        reader: what is shown.
        rows: positions of the rows to choose from, as the test split.
    """

    def __init__(self, reader: Reader, rows: np.ndarray) -> None:
        self.reader, self.rows = reader, rows
        known = [row for row in rows.tolist() if row in reader.probabilities]
        self.by_certainty = sorted(known, key=lambda row: abs(reader.probabilities[row] - 0.5))
        names = list(reader.checkpoints)
        wide = {"style": {"description_width": "initial"}}
        orders = ["in order", "at random"]
        orders += ["most certain first", "least certain first"] if known else []
        self.shown = widgets.ToggleButtons(
            options=["one row", "all rows"], description="Show", tooltips=["", "mean over rows"]
        )
        self.order = widgets.Dropdown(options=orders, description="Rows", **wide)
        self.index = widgets.BoundedIntText(0, 0, len(rows) - 1, description="Number", **wide)
        self.field = widgets.Dropdown(
            options=[(name, f) for f, name in enumerate(reader.names)],
            description="Masked field", **wide,
        )  # fmt: skip
        self.checkpoint = widgets.Dropdown(
            options=names, value=names[-1], description="Checkpoint", **wide
        )
        self.other = widgets.Dropdown(options=["none", *names], description="Compare with", **wide)
        self.pieces = widgets.Checkbox(description="show tokens", indent=False)
        self.map = Map()
        self.corpora: dict[tuple[str, str], dict[str, Any]] = {}
        controls = [self.shown, self.order, self.index, self.field, self.checkpoint, self.other,
                    self.pieces]  # fmt: skip
        for control in controls:
            control.observe(self.update, "value")
        row_layout = widgets.Layout(flex_flow="row wrap")
        super().__init__([widgets.HBox(controls, layout=row_layout), self.map])
        self.update()

    @property
    def position(self) -> int:
        """Of the chosen row in the data."""
        index = self.index.value
        if self.order.value == "at random":
            return int(np.random.default_rng(0).permutation(self.rows)[index])
        if self.order.value == "in order":
            return int(self.rows[index])
        ordered = self.by_certainty[:: -1 if self.order.value == "most certain first" else 1]
        return ordered[min(index, len(ordered) - 1)]

    def update(self, _: Any = None) -> None:
        """Shows what the controls say."""
        checkpoint, other = self.checkpoint.value, self.other.value
        compared = None if other in ("none", checkpoint) else other
        whole = self.shown.value == "all rows"
        for control in (self.order, self.index, self.field, self.pieces):
            control.disabled = whole
        self.map.pinned = None
        if not whole:
            self.map.view = self.reader.row(
                self.position, self.field.value, checkpoint, compared, self.pieces.value
            )
            return
        key = (checkpoint, compared or "")
        if key not in self.corpora:
            self.corpora[key] = self.reader.corpus(self.rows, checkpoint, compared)
        self.map.view = self.corpora[key]


def page(view: Mapping[str, Any], title: str) -> str:
    """A page of its own with the maps of a view: it needs no kernel and asks nobody for anything.

    Args:
        view: from `Reader.row` or `Reader.corpus`.
        title: of the page.
    """
    script = SCRIPT.read_text(encoding="utf-8")
    return PAGE.render(title=title, script=script, values={"view": dict(view), "pinned": None})
