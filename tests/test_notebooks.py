"""The notebooks: committed clean, and each runs by itself on a tiny profile."""

import json
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest

from altlib.lab import results, steps
from altlib.lab.execute import execute, read_parameters
from altlib.profile import load_profile
from altlib.store import PROJECT

NOTEBOOKS = sorted((PROJECT / "notebooks").glob("*.ipynb"))
TINY = Path(__file__).with_name("tiny.yaml")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_without_outputs(path: Path) -> None:
    book = nbformat.read(path, as_version=4)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert code[0].metadata["tags"] == ["parameters"]
    assert book.cells[0].cell_type == "markdown" and book.cells[0].source.startswith("# ")
    assert f'stamps.stamp("{path.stem}"' in code[-1].source
    assert max(len(cell.source.splitlines()) for cell in code) <= 70


@pytest.fixture(scope="module")
def home(tiny_plm: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One home for all notebooks, so that what one has made the next one finds."""
    folder = tmp_path_factory.mktemp("home")
    text = TINY.read_text().replace("name: tiny,", f"name: {tiny_plm},")
    (folder / "tiny.yaml").write_text(text)
    return folder


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_on_a_tiny_profile(path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALTLIB_HOME", str(home))
    out = home / path.name
    more: dict[str, object] = {"live": False} if "live" in read_parameters(path) else {}
    more |= {"seconds": 0.01, "starts": 1} if path.stem == "13_serving" else {}
    execute(path, out, {"profile": str(home / "tiny.yaml"), **more}, timeout=1200)
    assert out.exists()
    assert (home / "artifacts" / "stamps" / "tiny" / f"{path.stem}.json").exists()


def test_the_report_is_whole(home: Path) -> None:
    report = home / "reports" / "tiny"
    page = (report / "README.md").read_text(encoding="utf-8")
    assert "## Verdicts" in page and "ALT_both beats" in page and "Missing runs" not in page
    figures = ["auc", "differences", "pretraining", "temperature", "recovery", "data", "min_count"]
    figures += ["sentences", "words_hidden", "mixing", "gradients", "own_words", "needed_words"]
    studies = ["id_models", "backbones", "passes", "mask_ratio", "plm_sizes", "plm_sizes_cost"]
    for figure in (*figures, *studies, "serving"):
        assert (report / "figures" / f"{figure}.svg").exists(), figure
        assert (report / "figures" / f"{figure}.png").exists(), figure
    for table in ("main", "controls", "cold", "claims", *studies):
        assert (report / "tables" / f"{table}.csv").exists(), table
    assert "Verdicts" in (report / "index.html").read_text(encoding="utf-8")
    table = pd.read_csv(home / "reports" / "tiny" / "results.csv")
    wanted = "dataset profile model variant backbone plm seed auc logloss train_rows seconds"
    assert set(wanted.split()) <= set(table)
    kept = [json.loads(path.read_text()) for path in (home / "reports/tiny/results").iterdir()]
    assert len(kept) == len(table)
    rows = len(steps.prepare(load_profile(str(home / "tiny.yaml")).data).of("test"))
    assert all("test" not in result for result in kept)
    with np.load(home / "reports/tiny/predictions.npz") as predictions:
        assert {len(predictions[name]) for name in predictions} == {rows}
        assert len(predictions.files) == sum(not result["study"] for result in kept)


def test_tables_of_single_notebooks_hold_what_they_say(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALTLIB_HOME", str(home))

    def table(name: str) -> pd.DataFrame:
        path = home / "reports" / "tiny" / "tables" / f"{name}.csv"
        return pd.read_csv(path, dtype={"setting": "str"})

    config = load_profile(str(home / "tiny.yaml"))
    data = steps.prepare(config.data)
    splits = table("splits").set_index("split")
    for name, line in splits.iterrows():
        assert line["rows"] == len(data.of(str(name)))
        assert line["positive"] == pytest.approx(data.labels[data.of(str(name))].mean())
    fields = table("data")
    assert fields["values"].tolist() == [len(values) for values in data.values]
    before = results.history(config.aligned())
    assert before is not None
    found = before["epochs"][-1]["evaluation"]["recovery"]
    for field, (_, line) in zip(data.schema.fields, table("recovery").iterrows(), strict=True):
        assert line["field"] == field.words
        for column, kind in (("MTM accuracy", "mtm"), ("most frequent", "most frequent")):
            share = found[kind].get(field.name, [0, np.nan])[1]
            assert line[column] == pytest.approx(share, nan_ok=True)
        assert line["masked tokens"] == found["mlm"].get(field.name, [0])[0]
    trade = table("alignment_trade").set_index("setting")
    assert list(trade.index) == ["nothing", "determining"]
    needs = table("needed_words").set_index("masked field")
    assert set(needs.index) == {field.words for field in data.schema.fields}
    cost = table("plm_sizes_cost")
    assert cost["variant"].tolist() == ["ALT_ctr"] and cost["GFLOP a row"][0] > 0
    looks = table("mask_ratio_recovery")
    assert set(looks["setting"]) == {"0.15"}  # the only one that is looked at within its epoch
    for _, lines in looks.groupby("field"):
        assert len(lines) == 3 and lines["rows"].is_monotonic_increasing
        assert lines["rows"].iloc[-1] == len(data.of("train"))


def test_a_report_without_alignment_says_what_is_missing_and_what_flatters(
    tiny_plm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The preset "published", a run that nobody made, and a notebook with nothing to do."""
    text = TINY.read_text().replace("name: tiny,", f"name: {tiny_plm},")
    text = text[: text.index("seeds:")] + "seeds: {raw: [0], alt_lang: [0]}\npreset: published\n"
    (tmp_path / "bare.yaml").write_text(text)
    monkeypatch.setenv("ALTLIB_HOME", str(tmp_path))
    steps.finetune(load_profile(str(tmp_path / "bare.yaml")).run("raw", 0))
    for name in ("06_finetune_both", "14_report"):
        path = PROJECT / "notebooks" / f"{name}.ipynb"
        execute(path, tmp_path / path.name, {"profile": str(tmp_path / "bare.yaml")}, timeout=1200)
    page = (tmp_path / "reports" / "bare" / "README.md").read_text(encoding="utf-8")
    assert "Missing runs (1): alt_lang, seed 0" in page
    assert "Early stopping watched the test split" in page
    assert "03_pretraining" not in page
