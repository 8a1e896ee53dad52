"""The page reports/<profile>/index.html: every table and figure, and what they stand on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Template
from markupsafe import Markup

from altlib.tables import shown

PAGE = Template(
    """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
:root { color-scheme: light dark; --line: #8886; --soft: #8881; }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { line-height: 1.2; } h2 { margin-top: 2.6rem; border-bottom: 1px solid var(--line); }
nav { columns: 2; margin: 1rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: .3rem 0; font-weight: 600; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
th { background: var(--soft); }
figure { margin: 1rem 0; } figure img { max-width: 100%; background: white; border-radius: 4px; }
.basis { font-size: .86rem; opacity: .8; }
.finding { border-left: 4px solid #0072b2; padding: .2rem 1rem; background: var(--soft); }
.missing { border-left: 4px solid #d55e00; padding: .2rem 1rem; background: var(--soft); }
</style>
</head>
<body>
<main>
<h1>{{ title }}</h1>
<p>{{ lead }}</p>
{% if missing %}<div class="missing"><p>These runs are missing: {{ missing | join("; ") }}.</p></div>{% endif %}
<div class="finding">{% for sentence in findings %}<p>{{ sentence }}</p>{% endfor %}</div>
<nav aria-label="Contents"><ul>
{% for section in sections %}<li><a href="#s{{ loop.index }}">{{ section.title }}</a></li>
{% endfor %}</ul></nav>
{% for section in sections %}
<section id="s{{ loop.index }}">
<h2>{{ section.title }}</h2>
{% for paragraph in section.text %}<p>{{ paragraph }}</p>{% endfor %}
{% for name, alt in section.figures %}<figure><img src="figures/{{ name }}.svg" alt="{{ alt }}"></figure>
{% endfor %}
{% for table in section.tables %}<div class="scroll">{{ table }}</div>
{% endfor %}
<p class="basis">{{ basis }}</p>
</section>
{% endfor %}
</main>
</body>
</html>
""",
    autoescape=True,
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


def table_html(caption: str, frame: pd.DataFrame) -> Markup:
    """A table with its caption and column headers."""
    html = shown(frame).to_html(index=False, border=0, justify="unset")
    html = html.replace("<thead>", f"<caption>{escape(caption)}</caption>\n  <thead>", 1)
    return Markup(html.replace("<th>", '<th scope="col">'))
