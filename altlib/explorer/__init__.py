"""Which words a masked field reads, and what comes back of it: measured, as a widget, as a page."""

from altlib.explorer.reading import (
    NEEDS_ROWS,
    Reader,
    attention,
    dependence,
    needed_words,
    own_words,
    reader,
)
from altlib.explorer.widget import Explorer, page

__all__ = [
    "NEEDS_ROWS",
    "Explorer",
    "Reader",
    "attention",
    "dependence",
    "needed_words",
    "own_words",
    "page",
    "reader",
]
