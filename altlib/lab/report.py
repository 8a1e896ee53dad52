"""The pages of reports/<profile>/: every table and figure, and what they stand on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Template

from altlib.lab.show import shown

PAGE = Template(
    Path(__file__).with_name("report.html").read_text(encoding="utf-8"), autoescape=True
)


@dataclass
class Section:
    """A part of the page.

    Attributes:
        title: its heading.
        text: paragraphs before the figures.
        figures: names under figures/ and alternative texts.
        tables: captions and tables.
        basis: from `basis`, where it is not the page's.
    """

    title: str
    text: Sequence[str] = ()
    figures: Sequence[tuple[str, str]] = ()
    tables: Sequence[tuple[str, pd.DataFrame]] = ()
    basis: str = ""


def basis(profile: str, found: pd.DataFrame) -> str:
    """On what tables stand: the data, profile, machines, versions and days of results.

    Args:
        profile: its name.
        found: from `results.read`.
    """
    data: dict[str, None] = {}
    for of in (result["data"] for result in found["result"]):
        exact = "" if of.get("exact", True) else " (not known to be the published copy)"
        parts = ", ".join(f"{rows:,} {split}" for split, rows in of["split rows"].items())
        data[f"{of['name']}{exact}, split by {of['split']} into {parts} rows"] = None
    provenances = [result["provenance"] for result in found["result"]]
    machines = {
        f"{made['machine']}, {made['threads']} thread{'s' * (made['threads'] > 1)}": None
        for made in provenances
    }
    versions = {
        f"torch {made['versions']['torch']}, transformers {made['versions']['transformers']}": None
        for made in provenances
    }
    days = sorted({made["date"] for made in provenances})
    return (
        f"Data: {'; '.join(data)}. Profile: {profile}. Machine: {'; '.join(machines)}. "
        f"{'; '.join(versions)}. Made on {' to '.join(sorted({days[0], days[-1]}))}."
    )


def write(
    path: Path,
    title: str,
    lead: str,
    findings: Sequence[str],
    missing: Sequence[str],
    sections: Sequence[Section],
    basis: str,
    links: Mapping[str, str] | None = None,
) -> Path:
    """Writes a page, beside figures/ and tables/, and returns its path.

    Args:
        path: of the page.
        title, lead: what stands above.
        findings, missing: sentences, and runs that are not there.
        sections: the page's parts.
        basis: from `basis`, below every part that has none of its own.
        links: other pages by title, for the top.
    """
    parts = [
        {
            "title": section.title,
            "text": section.text,
            "figures": section.figures,
            "tables": [rendered(caption, frame) for caption, frame in section.tables],
            "basis": section.basis or basis,
        }
        for section in sections
    ]
    page = PAGE.render(
        title=title,
        lead=lead,
        findings=findings,
        missing=missing,
        sections=parts,
        links=links or {},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def rendered(caption: str, frame: pd.DataFrame) -> dict[str, Any]:
    """A table as the page wants it: numbers stand right, words left, and long ones may wrap."""

    def kind(values: pd.Series) -> str:
        words = [value for value in values if isinstance(value, str)]
        if not any(letter.isalpha() for value in words for letter in value):
            return ""
        return "prose" if max(map(len, words)) > 60 else "words"

    kinds = [kind(frame[name]) for name in frame]
    rows = [list(zip(kinds, row, strict=True)) for row in shown(frame).to_numpy()]
    return {"caption": caption, "head": list(zip(kinds, frame, strict=True)), "rows": rows}
