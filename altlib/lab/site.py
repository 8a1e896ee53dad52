"""The site of a profile: a front page with the verdicts, and its executed notebooks as pages.

The front page is reports/<profile>/README.md, plain Markdown that reads well where it lies. Sphinx
makes index.html of it, and a page of each notebook, with navigation and search. The site opens from
disk and asks no other host for anything: formulas become MathML, which browsers draw themselves.
"""

import argparse
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
from docutils import nodes
from latex2mathml.converter import convert

from altlib import store
from altlib.config import SPLITS
from altlib.lab import claims, show

SIGNS = {word: f"{sign} {word}" for word, sign in zip(claims.VERDICTS, "●✕○◌", strict=False)}
MAIN = ("variant", "model", "seeds", "AUC", "Logloss", "AUC − raw", "low", "high")
"""The columns of the main table on the front page."""
BESIDE = ("model", "AUC reported", "AUC here", "Logloss reported", "Logloss here")
"""The columns of what others report, there."""


def basis(profile: str, found: pd.DataFrame) -> str:
    """On what tables stand: the data, profile, machines, versions and days of `results.read`."""
    data: dict[tuple[str, str], set[int]] = {}
    for of in (result["data"] for result in found["result"]):
        exact = "" if of.get("exact", True) else " (not known to be the published copy)"
        train, *others = of["split rows"].items()
        rest = ", ".join(f"{rows:,} {split}" for split, rows in others)
        named = f"{of['name']}{exact}, {SPLITS[of['split']]} into", f"{rest} rows"
        data.setdefault(named, set()).add(train[1])
    told = [f"{name} {rows_of(of)}, {rest}" for (name, rest), of in data.items()]
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
        f"Data: {'; '.join(told)}. Profile: {profile}. Machine: {'; '.join(machines)}. "
        f"{'; '.join(versions)}. Run on {' to '.join(sorted({days[0], days[-1]}))}."
    )


def rows_of(train: Iterable[int]) -> str:
    """The numbers of training rows: all of them, and those of studies on a part."""
    whole, *parts = (f"{rows:,}" for rows in sorted(train, reverse=True))
    return f"{whole} train" + (f" (in some studies {', '.join(parts)})" if parts else "")


def front(
    title: str,
    asked: str,
    verdicts: pd.DataFrame,
    main: pd.DataFrame,
    doubts: Sequence[str],
    missing: Sequence[str],
    stands_on: str,
    reported: pd.DataFrame,
) -> str:
    """The front page in Markdown.

    Args:
        asked: what was asked, in a paragraph.
        verdicts: from `claims.table`.
        main: from `tables.main_table`.
        doubts: from `tables.warnings`.
        missing: names of runs that are not there, for a footnote.
        stands_on: from `basis`.
        reported: what others report, from notebook 7; lines without a figure of ours do not count.
    """
    tested = verdicts[verdicts["verdict"] != claims.NOT_TESTED]
    said = [f"{(tested['verdict'] == word).sum()} {word}" for word in SIGNS]
    board = tested[["claim", "verdict", "figures"]].replace({"verdict": SIGNS})
    untested = verdicts.loc[verdicts["verdict"] == claims.NOT_TESTED, "claim"]
    parts = [f"# {title}", asked]
    if len(tested):
        parts += ["## Verdicts"]
        parts += [
            f"Of {len(tested)} claims that were tested here: {', '.join(said)}. One seed, or one "
            "pretraining, decides nothing: [how to read the results](../../docs/reading.md)."
        ]
        if main["AUC − raw"].notna().any():
            alt = "Difference in AUC of each variant from raw, with 95 % intervals"
            parts += [f"![{alt}](figures/differences.svg)"]
        parts += [re.sub(r"([●✕○◌]) ", "\\1\u00a0", show.markdown(board))]  # kept on one line
        if len(untested):
            parts += ["Not tested here: " + " ".join(untested)]
    else:
        parts += ["No claim of the paper was tested here."]
    parts += ["## The main table", show.markdown(main[[*MAIN]])]
    parts += ["“AUC − raw” and its interval are over the seeds that a variant shares with raw."]
    parts += ["<details><summary>all columns</summary>", show.markdown(main), "</details>", *doubts]
    if len(reported) and len(ours := reported[reported["AUC here"].notna()]):
        parts += ["## Beside what others report"]
        for (source, note), of in ours.groupby(["source", "note"], sort=False):
            parts += [f"{source}: {note}.", show.markdown(of[[*BESIDE]])]
    parts += ["## Data, machine and versions", show.literal(stands_on)]
    if missing:
        parts += [f"Missing runs ({len(missing)}): {show.literal('; '.join(missing))}."]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def build(folder: Path, title: str) -> Path:
    """Makes the site of a report's README.md, of its executed notebooks, and of docs/; returns its
    front page, index.html. The title stands above the navigation."""
    from sphinx.application import Sphinx  # takes a second to load
    from sphinx.util.docutils import docutils_namespace, patch_docutils

    with tempfile.TemporaryDirectory() as scratch, open(os.devnull, "w") as nowhere:
        source, out = Path(scratch, "source"), Path(scratch, "out")
        shutil.copytree(folder / "figures", source / "figures")
        (source / "notebooks").mkdir()
        pages = []
        for file in sorted((folder / "notebooks").glob("[0-9][0-9]_*.ipynb")):
            whole = file.suffixes == [".ipynb"] and file.stat().st_size  # empty where it has failed
            if whole and file.stem != "14_report":  # which makes the site
                nbformat.write(page(file), source / "notebooks" / file.name)
                pages.append(f"notebooks/{file.stem}")
        guide = sorted((store.PROJECT / "docs").glob("*.md"))
        (source / "guide").mkdir()
        for file in guide:
            shutil.copy(file, source / "guide")
        tree = contents("Notebooks", pages) + contents("Guide", [f"guide/{f.stem}" for f in guide])
        text = (folder / "README.md").read_text(encoding="utf-8")
        text = text.replace("](../../docs/", "](guide/")  # where the site has them
        (source / "index.md").write_text(f"{text}\n\n{tree}\n", encoding="utf-8")
        with patch_docutils(None), docutils_namespace():
            places = (source, None, out, Path(scratch, "trees"))
            app = Sphinx(*places, "html", settings(title), status=None, warning=nowhere)
            app.build()
        if app.statuscode:
            raise RuntimeError(f"Sphinx could not make the site of {folder}.")
        shutil.copytree(out, folder, dirs_exist_ok=True)
    store.flush(folder)
    return folder / "index.html"


def contents(caption: str, pages: Sequence[str]) -> str:
    """A table of contents in MyST, which stands in the navigation alone."""
    head = ["```{toctree}", ":hidden:", f":caption: {caption}", ""]
    return "\n".join([*head, *pages, "```", ""])


def page(file: Path) -> nbformat.NotebookNode:
    """An executed notebook as a page: without the cell of injected parameters."""
    book = nbformat.read(file, as_version=4)
    injected = "injected-parameters"
    book.cells = [cell for cell in book.cells if injected not in cell.metadata.get("tags", [])]
    return book


def settings(title: str) -> dict[str, Any]:
    """Those of Sphinx."""
    return {
        "project": "altlib",
        "author": "",
        "extensions": ["myst_nb", "altlib.lab.site"],
        "nb_execution_mode": "off",
        "nb_output_stderr": "remove",  # progress bars
        "myst_enable_extensions": ["dollarmath", "amsmath"],
        "suppress_warnings": ["myst.header"],
        "html_theme": "sphinx_book_theme",
        "html_title": title,
        "html_math_renderer": "mathml",
        "html_copy_source": False,
        "html_show_sourcelink": False,
        "html_show_copyright": False,
        "html_theme_options": {
            "home_page_in_toc": True,
            "navbar_persistent": [],
            "use_download_button": False,
            "use_fullscreen_button": False,
        },
    }


def drawn(formula: str, display: str) -> str:
    """A formula as MathML; as it was written, where it is none."""
    try:
        return convert(formula, display=display)
    except Exception:  # of many kinds, as of a "$" beside an amount
        return f"<code>{escape(formula)}</code>"


def setup(app: Any) -> dict[str, bool]:
    """Sphinx calls it, as of an extension: formulas as MathML."""

    def inline(translator: Any, node: nodes.Element) -> None:
        translator.body.append(drawn(node.astext(), "inline"))
        raise nodes.SkipNode

    def block(translator: Any, node: nodes.Element) -> None:
        # The theme's class "math" would set it to the right.
        formula = drawn(node.astext(), "block")
        style = "overflow-x: auto; margin: 1em 0"  # on a phone, it scrolls
        translator.body.append(f'<div style="{style}" tabindex="0">{formula}</div>')
        raise nodes.SkipNode

    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m altlib.lab.site", description=__doc__)
    parser.add_argument("profile", help="whose report has a README.md and executed notebooks")
    name = parser.parse_args().profile
    folder = store.home() / "reports" / name
    if not (folder / "README.md").is_file():
        sys.exit(f"altlib: there is no {folder / 'README.md'}; ./run_all.sh {name} makes it.")
    print(build(folder, f"ALT, {name}"))


if __name__ == "__main__":
    main()
