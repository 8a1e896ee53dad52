"""How tables are shown to people, written for them, and read again."""

import re
from html import escape
from pathlib import Path
from typing import Any
from warnings import warn

import numpy as np
import pandas as pd
from IPython.display import HTML

from altlib.config import key
from altlib.lab import stamps
from altlib.profile import Profile

pd.set_option("display.max_colwidth", None)  # else notebooks cut claims and their figures short
pd.set_option("display.html.use_mathjax", False)  # a "$" in words and names of the user is a "$"

WORDS = (
    *("variant", "model", "setting", "control", "against", "best", "seeds improved", "metric"),
    *("field", "side", "determined by", "example", "split", "checkpoint", "sentences"),
    *("masked field", "needs most"),
    *("engine", "machine", "made on", "claim", "verdict", "figures", "based on", "source", "note"),
)
"""Columns of words, whatever they look like."""


def shown(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with numbers as people read them: 4 digits, 3 of a measured time or size, shares
    in %, a dash for nothing."""
    percent = {"unknown in test", "positive", "cold users", "cold items", "most frequent",
               "MTM accuracy", "MLM accuracy", "with other IDs", "recovered",
               "RelaImpr.", "own words", "own attention", "uniform"}  # fmt: skip
    if "own words" in frame:
        percent |= {"low", "high"}

    def text(name: str, value: Any) -> str:
        if value is None or (isinstance(value, float) and np.isnan(value)):
            return "–"
        if isinstance(value, float) and np.isinf(value):
            return "∞"
        if isinstance(value, (bool, np.bool_)):
            return "●" if value else ""
        if name in percent:
            return f"{value:+.2%}" if name == "RelaImpr." else f"{value:.1%}"
        if name in ("AUC − raw", "low", "high", "difference"):
            return f"{value:+.4f}"
        if name.startswith("p (") or name == "p":
            return "< 0.001" if value < 0.001 else f"{value:.3f}"
        if name in ("epochs", "epoch kept"):
            return f"{value:.1f}"
        if "_ms" in name or name in ("start-up seconds", "file MB", "peak memory MiB"):
            return f"{value:,.{max(0, 2 - int(np.floor(np.log10(value or 1.0))))}f}"
        if name.endswith((" rows", "seconds", "rows_per_s", "rows_per_second")):
            return f"{value:,.0f}"
        if isinstance(value, (int, np.integer)) or name in ("seeds", "pretrainings"):
            return f"{value:,.0f}"
        return f"{value:.4f}" if isinstance(value, float) else str(value)

    return pd.DataFrame(
        {name: [text(str(name), value) for value in frame[name].tolist()] for name in frame}
    )


def table(frame: pd.DataFrame, *columns: str) -> HTML:
    """The table for a notebook: these columns, all if none are named, and the whole below them
    behind "all columns"."""
    whole = shown(frame)
    text = (whole[list(columns)] if columns else whole).to_html(index=False, border=0)
    if columns and set(columns) < set(whole):
        every = whole.to_html(index=False, border=0)
        text += f"<details><summary>all columns</summary>{every}</details>"
    return HTML(text)


def read(profile: Profile, notebook: str, name: str) -> pd.DataFrame:
    """The table that a notebook wrote; an empty one if there is none.

    So it is, too, if the notebook last ran with another configuration of the profile, and, with a
    warning, if the table is damaged.
    """
    made = stamps.read(stamps.file_of(profile, notebook))
    path = stamps.report_folder(profile) / "tables" / f"{name}.csv"
    today = made.get("profile") == key(profile)  # one that failed names no profile
    if not today or not path.exists():
        return pd.DataFrame()
    try:  # "None" may be a name, and "007" as well
        words = dict.fromkeys(WORDS, "str")
        frame = pd.read_csv(path, dtype=words, keep_default_na=False, na_values=[""])
    except ValueError as error:
        told = f"{path} is damaged ({error}) and was ignored; run the notebook {notebook} again."
        warn(told, stacklevel=2)
        return pd.DataFrame()
    return frame.fillna({name: "" for name in WORDS if name in frame})


def write(frame: pd.DataFrame, folder: Path, name: str) -> None:
    """Writes tables/<name>.csv, with full precision, and tables/<name>.md, for reading."""
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    frame.to_csv(folder / "tables" / f"{name}.csv", index=False)
    (folder / "tables" / f"{name}.md").write_text(markdown(frame), encoding="utf-8")


def literal(text: Any) -> str:
    """Text as Markdown shows it: what it holds of Markdown and HTML is no more than signs."""
    text = " ".join(str(text).split())
    text = re.sub(r"&(?=#?\w+;)|<(?=\S)", lambda sign: escape(sign[0]), text)
    return re.sub(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", text)


def markdown(frame: pd.DataFrame) -> str:
    """The table in Markdown; what its words and names hold of Markdown and HTML is literal."""
    plain = shown(frame).rename(columns=literal).map(literal)
    return plain.to_markdown(index=False, disable_numparse=True) + "\n"
