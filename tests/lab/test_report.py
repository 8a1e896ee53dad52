import re
from html import escape
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pytest

from altlib.lab import report

RESULT = {
    "data": {
        "name": "clicks",
        "split": "time",
        "split rows": {"train": 8000, "test": 1000},
    },
    "provenance": {
        "machine": "a laptop",
        "threads": 2,
        "date": "2026-01-02",
        "versions": {"torch": "2", "transformers": "5"},
    },
}


def test_basis_names_each_data_set_machine_and_day_once() -> None:
    later = {
        "data": RESULT["data"] | {"name": "books", "exact": False},
        "provenance": RESULT["provenance"] | {"date": "2026-01-03"},
    }
    assert report.basis("quick", pd.DataFrame({"result": [later, RESULT, RESULT]})) == (
        "Data: books (not known to be the published copy), split by time into 8,000 train, 1,000 "
        "test rows; clicks, split by time into 8,000 train, 1,000 test rows. Profile: quick. "
        "Machine: a laptop, 2 threads. torch 2, transformers 5. Made on 2026-01-02 to 2026-01-03."
    )


def test_the_page_has_every_part(tmp_path: Path) -> None:
    short = pd.DataFrame({"variant": ["<raw>"], "AUC": [0.81234], "figures": ["much " * 20]})
    long = pd.DataFrame({"AUC": [0.5] * 41})
    parts = [
        report.Section("First", ["Text."], [("auc", "What it shows")], [("Short", short)]),
        report.Section("Second", tables=[("Long", long)], basis="Other data."),
    ]
    missing = ["P5 (no weights)"]
    path = tmp_path / "new" / "page.html"
    report.write(
        path, "A & B", "Lead.", ["A finding."], missing, parts, "All.", {"Claims": "claims.html"}
    )
    page = path.read_text(encoding="utf-8")
    assert "<title>A &amp; B</title>" in page and "<p>A finding.</p>" in page
    assert "These runs are missing: P5 (no weights)." in page
    assert '<a href="claims.html">Claims</a>' in page and '<a href="#s2">Second</a>' in page
    assert '<img src="figures/auc.svg" alt="What it shows">' in page
    assert '<td class="words">&lt;raw&gt;</td><td>0.8123</td><td class="prose">much' in page
    assert re.findall(r"<details><summary>(.*?)</summary>", page) == ["Long (41 rows)"]
    assert re.findall(r'"basis">(.*?)<', page) == ["All.", "Other data."]


@pytest.mark.parametrize("odd", ["{{ title }}", "</script><b>", '" onload="x', "50% #1?", "a&lt;b"])
def test_words_and_names_are_literal(odd: str, tmp_path: Path) -> None:
    table = pd.DataFrame({odd: [odd]})
    parts = [report.Section(odd, [odd], [(odd, odd)], [(odd, table)], odd), report.Section("Two")]
    report.write(tmp_path / "page.html", odd, odd, [odd], [odd], parts, odd, {odd: odd})
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count(escape(odd).replace("&#x27;", "&#39;").replace("&quot;", "&#34;")) >= 12
    (picture,) = re.findall(r'<img src="figures/([^"]*)\.svg" alt="[^"]*">', page)
    assert unquote(picture) == odd
