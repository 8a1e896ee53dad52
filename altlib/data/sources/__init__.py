"""Data sets by name: validated frames of words, with schema and provenance.

These are the inputs of the experiments of arXiv 2310.19453, section 4.1, and a synthetic set with
planted structure. A new data set is one module with a `Schema` and a `read`, and one line here.
"""

from typing import Any

from altlib.data import fetch
from altlib.data.frame import Dataset
from altlib.data.sources import bookcrossing, goodbooks, goodreads, ml_1m, ml_100k, own, synthetic
from altlib.faults import checked, nearest

READERS = {
    "ml-100k": ml_100k.read,
    "ml-1m": ml_1m.read,
    "bookcrossing": bookcrossing.read,
    "goodbooks": goodbooks.read,
    "goodreads": goodreads.read,
}


def load(name: str, options: dict[str, Any] | None = None) -> Dataset:
    """Reads a data set from its raw files, or makes the synthetic one.

    Args:
        name: a key of `READERS`, "synthetic", or the YAML file that describes one's own data.
        options: parameters of "synthetic" (the attributes of `synthetic.Synthetic`).

    Raises:
        ValueError: an unknown name or option, or files that break a rule.
        FileNotFoundError: the raw files are unavailable, or one of them is missing.
    """
    if name == "synthetic":
        return synthetic.make(checked(options or {}, "data.options", synthetic.Synthetic))
    if name not in READERS and not fetch.is_own(name):
        raise ValueError(f"There is no data set '{name}'; {nearest(name, [*READERS, 'synthetic'])}")
    if options:
        raise ValueError(
            f"Data set '{name}' takes no options but got {sorted(options)}; leave them out."
        )
    return own.read(own.raw(name)) if fetch.is_own(name) else READERS[name](fetch.raw(name))
