"""Tables: from results to means, paired differences and sentences."""

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import mistune
import numpy as np
import pandas as pd
import pytest

from altlib.config import VARIANTS
from altlib.data import sources
from altlib.data.frame import Dataset
from altlib.data.tabular import prepare
from altlib.lab import figures, metrics, stamps, steps, tables
from altlib.profile import Study, load_profile
from altlib.store import home, write_json

LABELS = np.random.default_rng(0).integers(2, size=400)
USERS = np.arange(400) // 2


def result(variant: str, seed: int, skill: float, split: str = "validation") -> dict[str, Any]:
    """A run whose predictions follow the labels the more the greater `skill` is."""
    rng = np.random.default_rng([seed, *variant.encode()])
    scores = 1 / (1 + np.exp(-(skill * (2 * LABELS - 1) + rng.normal(size=len(LABELS)))))
    return {
        "variant": variant,
        "seed": seed,
        "backbone": "dcnv2",
        "plm": "bert-tiny",
        "auc": metrics.auc(LABELS, scores),
        "logloss": metrics.logloss(LABELS, scores),
        "seconds": 10.0 * (seed + 1),
        "watched": {"split": split, "auc": 0.5, "logloss": 0.7},
        "epochs": 2,
        "epoch_kept": 1,
        "train_rows": 8000,
        "data": {"warnings": []},
        "provenance": {"machine": "a CPU"},
        "test": {
            "rows": list(range(len(LABELS))),
            "labels": LABELS.tolist(),
            "users": USERS.tolist(),
            "probabilities": scores.tolist(),
        },
    }


@pytest.fixture
def found() -> list[dict[str, Any]]:
    return [
        *(result("raw", seed, 0.5) for seed in (0, 1)),
        *(result("alt_ctr", seed, 1.5) for seed in (0, 1)),
        result("plain_lang", 0, 0.1),
        result("alt_lang", 0, 0.1),
    ]


def test_the_epoch_kept_is_the_best_watched_or_the_last() -> None:
    epochs = [{"evaluation": {"auc": auc}} for auc in (0.6, 0.7, 0.7, 0.65)]
    for patience, kept in ((3, 2), (None, 4)):
        training = {"training": {"patience": patience}}
        assert tables.epoch_kept({"history": {"epochs": epochs}, "config": training}) == kept


def test_main_table_holds_means_and_differences_from_raw(found: list[dict[str, Any]]) -> None:
    table = tables.main_table(found).set_index("variant")
    raw, ours = ([r["auc"] for r in found if r["variant"] == v] for v in ("raw", "alt_ctr"))
    line = table.loc["ALT_ctr"]
    assert line["seeds"] == 2 and line["seconds"] == 15.0
    assert line["AUC"] == pytest.approx(np.mean(ours))
    assert line["AUC s.d."] == pytest.approx(np.std(ours, ddof=1))
    assert line["AUC − raw"] == pytest.approx(np.mean(ours) - np.mean(raw))
    assert line["low"] < line["AUC − raw"] < line["high"]
    assert line["RelaImpr."] == pytest.approx((np.mean(ours) - 0.5) / (np.mean(raw) - 0.5) - 1)
    assert pd.isna(table.loc["ID-based model (raw)", "AUC − raw"])
    assert table["best"].tolist() == ["", "●", "", ""]
    assert (line["in favour"], line["epochs"], line["epoch kept"]) == ("2 of 2", 2, 1)
    assert (table["p (BH)"].dropna() >= table["p"].dropna()).all()
    assert table["p (BH)"].notna().sum() == 3


def test_only_common_seeds_are_compared_with_raw(found: list[dict[str, Any]]) -> None:
    table = tables.main_table(found).set_index("variant")
    alone = table.loc["PLM (unaligned)"]
    assert alone["AUC − raw"] == pytest.approx(found[4]["auc"] - found[0]["auc"])
    assert alone["AUC − raw"] != pytest.approx(alone["AUC"] - table["AUC"].iloc[0])
    assert alone["RelaImpr."] == pytest.approx(metrics.rela_impr(found[4]["auc"], found[0]["auc"]))
    told = tables.verdict(tables.main_table(found), tables.control_table(found))
    assert any("PLM (unaligned)" in words and "1 seed)" in words for words in told)


def test_users_are_drawn_with_all_their_rows(found: list[dict[str, Any]]) -> None:
    apart = tables.control_table(found)
    for run in found:
        run["test"]["users"] = (np.arange(400) // 40).tolist()
    together = tables.control_table(found)
    assert (apart["difference"] == together["difference"]).all()
    assert (apart["low"] != together["low"]).all()


def test_rows_of_a_single_user_allow_no_test(found: list[dict[str, Any]]) -> None:
    for run in found:
        run["test"]["users"] = [7] * len(LABELS)
    controls = tables.control_table(found)
    assert len(controls) == 4 and controls[["difference", "p (BH)"]].isna().all(axis=None)


def test_a_difference_counts_only_if_its_interval_excludes_nothing(
    found: list[dict[str, Any]],
) -> None:
    controls = tables.control_table(found)
    said = tables.verdict(tables.main_table(found), controls)
    assert said[0].startswith("ALT_ctr beats the raw ID-based model here (+")
    assert said[0].endswith("2 seeds).")
    assert said[2].startswith("ALT_lang is worse than the raw ID-based model here (-")
    assert said[3].startswith("ALT_lang is not distinguishable from its control, PLM (unaligned)")
    assert len(said) == 4
    assert set(controls["metric"]) == {"AUC", "Logloss"} and len(controls) == 4


def test_selection_on_the_test_split_is_told(found: list[dict[str, Any]]) -> None:
    assert tables.warnings(found) == []
    found[0]["data"] = {"warnings": ["A doubt."]}
    assert tables.warnings(found) == ["A doubt."]
    assert "watched the test split" in tables.warnings([*found, result("raw", 2, 1, "test")])[1]


def test_seconds_of_several_machines_are_told(found: list[dict[str, Any]]) -> None:
    found[2]["pretraining_machine"] = "a GPU"
    assert "several machines" in tables.warnings(found)[0]


def test_numbers_are_shown_as_people_read_them() -> None:
    frame = pd.DataFrame(
        {"AUC": [0.81234, np.nan], "p": [0.0001, 0.25], "low": [0.1, -0.1], "rows": [1234, 5]}
    ).assign(p50_ms=[0.10912, 7315.6], p99_ms=[0.0, np.inf])
    shown = tables.shown(frame).to_dict("list")
    assert shown == {
        "AUC": ["0.8123", "–"],
        "p": ["< 0.001", "0.250"],
        "low": ["+0.1000", "-0.1000"],
        "rows": ["1,234", "5"],
        "p50_ms": ["0.109", "7,316"],
        "p99_ms": ["0.00", "∞"],
    }


def test_cold_rows_are_scored_apart() -> None:
    made_up = sources.load("synthetic", {"rows": 600, "items": 200})
    data = prepare(made_up.frame, made_up.schema)
    rows = data.of("test")
    cold = data.cold(rows, "item")
    made = result("raw", 0, 1)
    scores = np.where(cold, 0.5, data.labels[rows])
    made["test"] = {
        "rows": rows.tolist(),
        "labels": data.labels[rows].tolist(),
        "users": data.users(rows).tolist(),
        "probabilities": scores.tolist(),
    }
    other = made | {
        "variant": "alt_ctr",
        "test": made["test"] | {"probabilities": [0.5] * len(rows)},
    }
    table = tables.cold_table(data, [made, other]).set_index(["test rows of", "variant"])
    raw, aligned = VARIANTS["raw"].label, VARIANTS["alt_ctr"].label
    assert table.loc[("cold items", raw), "AUC"] == 0.5
    assert table.loc[("cold items", raw), "rows"] == cold.sum()
    assert table.loc[("warm items", raw), "AUC"] == 1.0
    assert table.loc[("warm items", aligned), "AUC − raw"] == -0.5
    assert table.loc[("warm items", raw), "best"] == "●"
    assert table.loc[("warm items", aligned), "best"] == ""


def test_runs_are_kept_without_what_may_not_be_passed_on(
    found: list[dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "of before.json").touch()
    ablation = found[0] | {"study": "losses", "setting": "MLM + MTM"}
    tables.keep([*found, ablation], tmp_path)
    kept = {path.name: json.loads(path.read_text()) for path in (tmp_path / "results").iterdir()}
    assert len(kept) == len(found) + 1
    predicted = kept["raw-0.json"]["test"]["probabilities"]
    assert predicted == pytest.approx(found[0]["test"]["probabilities"], rel=1e-5)
    assert kept["losses-MLM_MTM-raw-0.json"]["test"] == {"probabilities": []}
    assert found[0]["test"]["labels"]


def test_recovery_stands_beside_the_most_frequent(synthetic: Dataset) -> None:
    data = prepare(synthetic.frame, synthetic.schema)
    shares = {
        "mtm": {"genre": [9, 0.5, 1.2]},
        "most frequent": {"genre": [9, 0.25, 1.5]},
        "mlm": {},
    }
    table = tables.recovery(data, {"recovery": shares}).set_index("field")
    line = table.loc["genre"]
    assert (line["MTM accuracy"], line["most frequent"], line["masked IDs"]) == (0.5, 0.25, 9)
    assert pd.isna(line["MLM accuracy"]) and pd.isna(table.loc["age", "MTM accuracy"])


def test_recovery_over_training_has_every_look(tiny_plm: str) -> None:
    tiny = str(Path(__file__).parents[1] / "tiny.yaml")
    changes = {"plm": {"name": tiny_plm}, "pretraining": {"evaluations": 3}}
    watched, plain = (load_profile(tiny, c) for c in (changes, {"plm": {"name": tiny_plm}}))
    steps.pretrain(watched.aligned())
    settings = {"three looks": [watched.run("alt_ctr", 0)], "one": [plain.run("alt_ctr", 0)]}
    data = steps.prepare(watched.data)
    curves = tables.recovery_curves(settings)
    assert set(curves["setting"]) == {"three looks"}
    whole = len(data.of("train"))
    for _, lines in curves.groupby("field"):
        assert len(lines) == 3 and lines["rows"].is_monotonic_increasing
        assert lines["rows"].iloc[-1] == whole
    assert curves["recovered"].between(0, 1).all() and (curves["loss"] > 0).all()
    assert not len(tables.recovery_curves({"raw": [watched.run("raw", 0)]}))


@pytest.fixture
def study() -> dict[str, list[dict[str, Any]]]:
    cost = {"pretraining_rows": 1000, "pretraining_seconds": 5.0}
    skills = {"two": (0.5, 0.5), "one": (0.4, 0.6), "none": (-1.0, -1.0)}
    return {
        setting: [result("alt_ctr", seed, skill) | cost for seed, skill in enumerate(of)]
        for setting, of in skills.items()
    }


def planned(
    found: dict[str, list[dict[str, Any]]], against: Any = "first setting", **variants: list[str]
) -> Study:
    """A study with these settings, each of `alt_ctr` unless it has variants of its own."""
    settings = {name: {"variants": variants.get(name, ["alt_ctr"])} for name in found}
    return Study(settings=settings, seeds=[0, 1], against=against)


def test_a_setting_without_runs_has_a_line_and_is_no_base(
    study: dict[str, list[dict[str, Any]]],
) -> None:
    study["two"] = []
    table = tables.study_table(study, planned(study)).set_index("setting")
    assert pd.isna(table.loc["two", "AUC"]) and table.loc["two", "seeds"] == 0
    assert table["difference"].isna().all() and "●" in table["best"].tolist()
    assert tables.study_table({}, planned(study))["AUC"].isna().all()


def test_only_seeds_that_both_sides_have_are_compared(
    study: dict[str, list[dict[str, Any]]],
) -> None:
    whole = tables.study_table(study, planned(study)).set_index("setting")
    study["two"] = study["two"][:1]
    table = tables.study_table(study, planned(study)).set_index("setting")
    first = study["one"][0]["auc"] - study["two"][0]["auc"]
    assert table.loc["one", "difference"] == pytest.approx(first)
    assert whole.loc["one", "difference"] != pytest.approx(first)
    assert table.loc["one", "in favour"] == "0 of 1"


def test_a_study_is_compared_with_its_first_setting_in_pairs(
    study: dict[str, list[dict[str, Any]]],
) -> None:
    table = tables.study_table(study, planned(study)).set_index("setting")
    means = {name: np.mean([r["auc"] for r in runs]) for name, runs in study.items()}
    assert table.loc["one", "difference"] == pytest.approx(means["one"] - means["two"])
    assert table.loc["one", "low"] < table.loc["one", "difference"] < table.loc["one", "high"]
    assert table.loc["one", "in favour"] == "1 of 2"
    assert pd.isna(table.loc["two", "difference"]) and pd.isna(table.loc["two", "p (BH)"])
    assert (table["pretraining rows"] == 1000).all()
    # The smallest of two p-values is doubled, the largest stays.
    assert table["p (BH)"].max() == table["p"].max()
    assert table.loc["none", "p (BH)"] == pytest.approx(2 * table.loc["none", "p"])
    assert table.loc["none", "best"] == ""
    assert "●" in table["best"].tolist()


def test_a_study_may_compare_with_controls(study: dict[str, list[dict[str, Any]]]) -> None:
    study["two"] += [result("raw", seed, 0.1) for seed in (0, 1)]
    table = tables.study_table(study, planned(study, "control", two=["alt_ctr", "raw"]))
    tested = table[table["difference"].notna()]
    assert tested[["variant", "setting"]].to_numpy().tolist() == [["ALT_ctr", "two"]]
    assert tested["difference"].iloc[0] > 0


def test_settings_with_other_data_are_not_ranked(study: dict[str, list[dict[str, Any]]]) -> None:
    for runs_of in study.values():
        runs_of += [result("raw", seed, 3) for seed in (0, 1)]
    settings = {name: {"data": {"train_share": 0.1}} for name in study}
    variants = ["raw", "alt_ctr"]
    of = Study(settings=settings, seeds=[0, 1], variants=variants, against="control")
    table = tables.study_table(study, of)
    assert table["best"].tolist() == ["●", ""] * 3


def test_only_what_was_pretrained_has_the_costs_of_a_plm() -> None:
    tiny = str(Path(__file__).parents[1] / "tiny.yaml")
    config = load_profile(tiny, {"plm": {"name": "no/such-plm"}})
    planned_runs = {"absent": [config.run(variant, 0) for variant in ("raw", "alt_ctr")]}
    table = pd.DataFrame(columns=tables.STUDY_COLUMNS)
    table.loc[0, ["variant", "setting", "pretraining rows", "AUC"]] = ["raw", "absent", 0, 0.7]
    costs = tables.plm_scaling(table, planned_runs)
    assert not len(costs) and {"parameters", "GFLOP a row"} <= set(costs)
    assert figures.plm_scaling(costs).axes


def test_runs_on_other_rows_are_not_compared(study: dict[str, list[dict[str, Any]]]) -> None:
    for run in study["one"]:
        run["test"]["rows"] = [1, *run["test"]["rows"][1:]]
    table = tables.study_table(study, planned(study)).set_index("setting")
    assert pd.isna(table.loc["one", "difference"]) and pd.notna(table.loc["none", "difference"])


def test_settings_with_a_variant_each_are_compared_with_each_other() -> None:
    found = {"DCNv2": [result("raw", 0, 0.1)], "CTR-BERT": [result("ctr_bert", 0, 1.0)]}
    each = planned(found, **{"DCNv2": ["raw"], "CTR-BERT": ["ctr_bert"]})
    table = tables.study_table(found, each).set_index("setting")
    assert table.loc["CTR-BERT", "difference"] > 0 and pd.isna(table.loc["DCNv2", "difference"])
    assert table["best"].tolist() == ["", "●"]
    assert table["variant"].tolist() == ["ID-based model", "two PLMs"]


def test_a_table_of_another_configuration_is_not_read(tmp_path: Path) -> None:
    tiny = str(Path(__file__).parents[1] / "tiny.yaml")
    config = load_profile(tiny)
    frame = pd.DataFrame({"own words": [0.5]})
    tables.write(frame, stamps.report_folder(config), "own_words")
    assert not len(tables.read(config, "12_alignment", "own_words"))
    stamps.stamp("12_alignment", config)
    assert tables.read(config, "12_alignment", "own_words").equals(frame)
    changed = load_profile(tiny, {"pretraining": {"seed": 7}})
    assert not len(tables.read(changed, "12_alignment", "own_words"))
    assert stamps.failed_notebooks(config) == []
    stamp = home() / "artifacts" / "stamps" / config.name / "12_alignment.json"
    write_json(stamp, {"notebook": "12_alignment", "failed": "It broke."})
    assert not len(tables.read(config, "12_alignment", "own_words"))
    assert stamps.failed_notebooks(config) == ["notebook 12_alignment (It broke)"]


def test_a_damaged_table_or_stamp_is_named_and_left_out() -> None:
    config = load_profile(str(Path(__file__).parents[1] / "tiny.yaml"))
    tables.write(pd.DataFrame({"a": [1]}), stamps.report_folder(config), "own_words")
    stamps.stamp("12_alignment", config)
    (stamps.report_folder(config) / "tables" / "own_words.csv").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"own_words\.csv is damaged .* run the notebook 12_align"):
        assert not len(tables.read(config, "12_alignment", "own_words"))
    stamp = home() / "artifacts" / "stamps" / config.name / "12_alignment.json"
    stamp.write_bytes(stamp.read_bytes()[:20])
    assert not len(tables.read(config, "12_alignment", "own_words"))
    (failed,) = stamps.failed_notebooks(config)
    assert failed == "notebook 12_alignment (12_alignment.json is damaged; run it again)"


def test_words_and_names_are_literal_in_markdown(tmp_path: Path) -> None:
    odd = ["x|y", "two\nlines", "<script>", "&lt; <b> R&D", r"\|", "`c`", "[a](b)", "~~s~~",
           "$1-$2", "*i*", "_i_", "__b__", "snake_case", "< 0.001", "trailing\\"]  # fmt: skip
    frame = pd.DataFrame({name: odd for name in ["plain", "a|b", "<i>", "$x$"]})
    tables.write(frame, tmp_path, "odd")
    text = (tmp_path / "tables" / "odd.md").read_text(encoding="utf-8")
    assert "snake_case" in text and "< 0.001" in text  # no more signs than needed
    page = mistune.create_markdown(escape=False, plugins=["table", "strikethrough", "math"])(text)
    cells = [unescape(cell).strip() for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", page)]
    assert cells == [*frame, *(" ".join(word.split()) for word in odd for _ in frame)]
    assert set(re.findall(r"</?(\w+)", page)) == {"table", "thead", "tbody", "tr", "th", "td"}
    assert "$x$" in frame._repr_html_() and "tex2jax_ignore" in frame._repr_html_()


@pytest.mark.parametrize("word", ["None", "NA", "null", "nan"])
def test_a_name_like_a_gap_is_read_as_it_was_written(word: str) -> None:
    config = load_profile(str(Path(__file__).parents[1] / "tiny.yaml"))
    frame = pd.DataFrame({"checkpoint": [word], "own words": [np.nan]})
    tables.write(frame, stamps.report_folder(config), "own_words")
    stamps.stamp("12_alignment", config)
    assert tables.read(config, "12_alignment", "own_words").equals(frame)


def test_budgets_are_told_by_kind_of_model() -> None:
    config = load_profile("quick")
    told = tables.budgets(config)
    assert "ID-based models at most 20 epochs of batches of 1024, PLMs at most 1 epoch of" in told
