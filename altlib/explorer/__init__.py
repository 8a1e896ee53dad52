"""Which words a masked field reads, and what comes back of it: measured, as a widget, as a page."""

from altlib.explorer.reading import Reader, own_words, reader
from altlib.explorer.widget import Explorer, page

__all__ = ["Explorer", "Reader", "own_words", "page", "reader"]
