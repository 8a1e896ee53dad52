"""The page reports/<profile>/index.html: every table and figure, and what they stand on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Template

from altlib.tables import shown

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
    """

    title: str
    text: Sequence[str] = ()
    figures: Sequence[tuple[str, str]] = ()
    tables: Sequence[tuple[str, pd.DataFrame]] = ()


def basis(data: Mapping[str, Any], profile: str, provenance: Mapping[str, Any]) -> str:
    """One sentence that says on what a table stands: data, profile, machine, versions."""
    exact = "" if data.get("exact", True) else " (not the public archive: another checksum)"
    versions = provenance["versions"]
    return (
        f"Data: {data['name']}{exact}, {data['rows']:,} rows, split by {data['split']}. "
        f"Profile: {profile}. Machine: {provenance['machine']}, {provenance['threads']} threads. "
        f"torch {versions['torch']}, transformers {versions['transformers']}. "
        f"Made on {provenance['date']}."
    )


def write(
    folder: Path,
    title: str,
    lead: str,
    findings: Sequence[str],
    missing: Sequence[str],
    sections: Sequence[Section],
    basis: str,
) -> Path:
    """Writes index.html into `folder`, beside figures/ and tables/, and returns its path."""
    rendered = [
        {
            "title": section.title,
            "text": section.text,
            "figures": section.figures,
            "tables": [table_html(caption, frame) for caption, frame in section.tables],
        }
        for section in sections
    ]
    page = PAGE.render(
        title=title, lead=lead, findings=findings, missing=missing, sections=rendered, basis=basis
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "index.html"
    path.write_text(page, encoding="utf-8")
    return path


def table_html(caption: str, frame: pd.DataFrame) -> str:
    """A table with its caption and column headers."""
    html = shown(frame).to_html(index=False, border=0, justify="unset")
    html = html.replace("<thead>", f"<caption>{escape(caption)}</caption>\n  <thead>", 1)
    return html.replace("<th>", '<th scope="col">')
