"""The site: verdicts first, notebooks as pages, and nothing asked of another host."""

import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from altlib.lab import claims, site

VERDICTS = pd.DataFrame(
    {
        "claim": ["ALT gains.", "ALT costs nothing.", "ALT sings."],
        "verdict": ["no difference", "supported", "not tested"],
        "figures": ["+0.0002 [-0.0005, +0.0009]", "1.010", "–"],
        "based on": ["table main", "table same cost", "–"],
    }
)
MAIN = pd.DataFrame(
    [dict.fromkeys(site.MAIN, 0.5) | {"variant": "raw", "model": "A | B", "seeds": 3}]
)


REPORTED = pd.DataFrame(
    {name: [0.9, 0.8] for name in site.BESIDE}
    | {"model": ["DCNv2", "P5"], "AUC here": [0.91, None], "source": "A paper", "note": "tuned"}
)


def front(
    missing: tuple[str, ...] = (),
    verdicts: pd.DataFrame = VERDICTS,
    reported: pd.DataFrame = REPORTED,
) -> str:
    words = ("ALT on *x*", "Asked.", verdicts, MAIN, ["A finding."], missing, "Data: x.", reported)
    return site.front(*words)


def test_the_front_page_begins_with_what_stands() -> None:
    text = front()
    assert text.startswith("# ALT on *x*\n\nAsked.\n\n## Verdicts\n\nOf 2 claims")
    assert "1 supported, 0 contradicted, 1 no difference, 0 undecided" in text
    assert "(../../docs/reading.md)" in text
    assert site.rows_of([583, 58284, 5828]) == "58,284 train (in some studies 5,828, 583)"
    assert "●\u00a0supported" in text and "○\u00a0no difference" in text
    assert "Not tested here: ALT sings." in text
    assert text.count("| raw ") == 2 and "<summary>all columns</summary>" in text
    assert r"A \| B" in text and "A finding." in text and "Missing runs" not in text
    assert set(site.SIGNS) | {"not tested"} == set(claims.VERDICTS)


def test_what_is_missing_is_a_footnote() -> None:
    text = front(("P5, seed 0 (no weights)",))
    assert text.rstrip().endswith("Missing runs (1): P5, seed 0 (no weights).")


def test_what_others_report_stands_beside_ours() -> None:
    text = front()
    assert "## Beside what others report\n\nA paper: tuned.\n\n| model " in text
    assert "| DCNv2 " in text and "| P5 " not in text
    assert "others report" not in front(reported=REPORTED.iloc[1:])
    assert "others report" not in front(reported=pd.DataFrame())


def test_a_page_without_a_tested_claim_or_a_difference_shows_neither() -> None:
    text = front(verdicts=VERDICTS.iloc[2:])
    assert text.startswith("# ALT on *x*\n\nAsked.\n\nNo claim of the paper was tested here.")
    assert "Verdicts" not in text and "differences.svg" not in text


@pytest.fixture
def report(tmp_path: Path) -> Path:
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "differences.svg").write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>'
    )
    (tmp_path / "README.md").write_text(front(), encoding="utf-8")
    (tmp_path / "notebooks").mkdir()
    text = r"""# 1 · First

It is $\operatorname{softmax}(q^\top t_l / \sqrt{H})$, with

$$x_f \mapsto y$$"""
    injected = nbformat.v4.new_code_cell("secret = 1", metadata={"tags": ["injected-parameters"]})
    shown = nbformat.v4.new_code_cell("print(1)")
    shown.outputs = [nbformat.v4.new_output("stream", name="stdout", text="one\n")]
    shown.outputs += [nbformat.v4.new_output("stream", name="stderr", text="a bar\n")]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text), injected, shown])
    nbformat.write(book, tmp_path / "notebooks" / "01_first.ipynb")
    nbformat.write(book, tmp_path / "notebooks" / "02_second.failed.ipynb")
    return tmp_path


def test_notebooks_become_pages(report: Path) -> None:
    failed = report / "notebooks" / "03_third.ipynb"
    failed.touch()  # as Snakemake leaves it where a notebook fails
    index = site.build(report, "ALT, x")
    text = index.read_text(encoding="utf-8")
    assert "Verdicts" in text and 'href="notebooks/01_first.html"' in text
    page = (report / "notebooks" / "01_first.html").read_text(encoding="utf-8")
    assert page.count("<math") == 2 and "softmax" in page and "\\sqrt" not in page
    assert "one" in page and "a bar" not in page and "secret" not in page
    assert not (report / "notebooks" / "02_second.failed.html").exists()
    assert (report / "notebooks" / "01_first.ipynb").exists()
    failed.unlink()
    assert not [file for file in report.rglob("*") if file.is_file() and not file.stat().st_size]


def test_the_site_loads_nothing_from_another_host(report: Path) -> None:
    site.build(report, "ALT, x")
    for file in report.rglob("*.html"):
        loaded = re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=\"([^\"]+)", file.read_text())
        assert not [address for address in loaded if "//" in address], file
