"""Tables: from results to means, paired differences and sentences."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from altlib.config import VARIANTS
from altlib.data import sources
from altlib.data.tabular import prepare
from altlib.lab import metrics, tables
from altlib.lab.results import Split
from altlib.profile import Study, load_profile

LABELS = np.random.default_rng(0).integers(2, size=400)
SPLIT = Split(LABELS, np.arange(400) // 2, {})


def result(variant: str, seed: int, skill: float, **columns: Any) -> dict[str, Any]:
    """A run whose predictions follow the labels the more the greater `skill` is."""
    rng = np.random.default_rng([seed, *variant.encode()])
    scores = 1 / (1 + np.exp(-(skill * (2 * LABELS - 1) + rng.normal(size=len(LABELS)))))
    return {
        "study": "",
        "setting": "",
        "variant": variant,
        "model": "DCNv2",
        "seed": seed,
        "pretraining_seed": None,
        "auc": metrics.auc(LABELS, scores),
        "logloss": metrics.logloss(LABELS, scores),
        "seconds": 10.0 * (seed + 1),
        "selected_on": "validation",
        "selection_auc": 0.6 + 0.1 * seed,
        "epochs": 2,
        "epoch_kept": 1,
        "train_rows": 8000,
        "pretraining_rows": 0,
        "pretraining_seconds": 0.0,
        "machine": "a CPU",
        "pretraining_machine": "",
        "data": "key",
        "test": SPLIT,
        "predictions": scores,
        "result": {"data": {"warnings": []}},
        **columns,
    }


@pytest.fixture
def found() -> pd.DataFrame:
    return pd.DataFrame(
        [
            *(result("raw", seed, 0.5) for seed in (0, 1)),
            *(result("alt_ctr", seed, 1.5) for seed in (0, 1)),
            result("plain_lang", 0, 0.1),
            result("alt_lang", 0, 0.1),
        ]
    )


def with_users(found: pd.DataFrame, users: np.ndarray) -> pd.DataFrame:
    """The runs as if their test rows were those of other users."""
    return found.assign(test=[replace(SPLIT, users=users)] * len(found))


def test_a_summary_holds_means_and_standard_deviations_over_seeds() -> None:
    runs = pd.DataFrame([result("raw", seed, 0.5, auc=auc) for seed, auc in ((0, 1.0), (1, 3.0))])
    both, single = tables.summary(runs), tables.summary(runs[:1])
    assert (both["AUC"], both["AUC s.d."]) == pytest.approx((2.0, 2**0.5))
    assert single["AUC"] == 1.0 and np.isnan(single["AUC s.d."])
    assert both["AUC watched"] == pytest.approx(0.65)


def test_main_table_holds_means_and_differences_from_raw(found: pd.DataFrame) -> None:
    table = tables.main_table(found).set_index("variant")
    raw, ours = (found.loc[found["variant"] == v, "auc"] for v in ("raw", "alt_ctr"))
    line = table.loc["ALT_ctr"]
    assert line["seeds"] == 2 and line["seconds"] == 15.0
    assert line["AUC"] == pytest.approx(np.mean(ours))
    assert line["AUC s.d."] == pytest.approx(np.std(ours, ddof=1))
    assert line["AUC − raw"] == pytest.approx(np.mean(ours) - np.mean(raw))
    assert line["low"] < line["AUC − raw"] < line["high"]
    assert line["RelaImpr."] == pytest.approx((np.mean(ours) - 0.5) / (np.mean(raw) - 0.5) - 1)
    assert pd.isna(table.loc["ID-based model (raw)", "AUC − raw"])
    assert table["best"].tolist() == ["", "●", "", ""]
    assert (line["seeds improved"], line["epochs"], line["epoch kept"]) == ("2 of 2", 2, 1)
    assert (table["p (BH)"].dropna() >= table["p"].dropna()).all()
    assert table["p (BH)"].notna().sum() == 3


def test_only_common_seeds_are_compared_with_raw(found: pd.DataFrame) -> None:
    table = tables.main_table(found).set_index("variant")
    alone = table.loc["PLM (unaligned)"]
    assert alone["AUC − raw"] == pytest.approx(found["auc"][4] - found["auc"][0])
    assert alone["AUC − raw"] != pytest.approx(alone["AUC"] - table["AUC"].iloc[0])
    assert alone["RelaImpr."] == pytest.approx(metrics.rela_impr(found["auc"][4], found["auc"][0]))
    assert alone["seeds improved"] == "0 of 1"


def test_users_are_drawn_with_all_their_rows(found: pd.DataFrame) -> None:
    apart = tables.control_table(found)
    together = tables.control_table(with_users(found, np.arange(400) // 40))
    assert (apart["difference"] == together["difference"]).all()
    assert (apart["low"] != together["low"]).all()


def test_rows_of_a_single_user_allow_no_test(found: pd.DataFrame) -> None:
    controls = tables.control_table(with_users(found, np.full(400, 7)))
    assert len(controls) == 4 and controls[["difference", "p"]].isna().all(axis=None)


def test_controls_are_compared_in_auc_and_logloss(found: pd.DataFrame) -> None:
    controls = tables.control_table(found)
    assert controls["variant"].unique().tolist() == ["ALT_ctr", "ALT_lang"]
    assert set(controls["metric"]) == {"AUC", "Logloss"} and len(controls) == 4


def test_selection_on_the_test_split_is_told(found: pd.DataFrame) -> None:
    assert tables.warnings(found) == []
    found["result"] = [{"data": {"warnings": ["A doubt."]}}] * len(found)
    assert tables.warnings(found) == ["A doubt."]
    flattered = found.assign(selected_on=["test", *found["selected_on"][1:]])
    assert "watched the test split" in tables.warnings(flattered)[1]


def test_seconds_of_several_machines_are_told(found: pd.DataFrame) -> None:
    found.loc[2, "pretraining_machine"] = "a GPU"
    assert "several machines" in tables.warnings(found)[0]


def test_cold_rows_are_scored_apart() -> None:
    made_up = sources.load("synthetic", {"rows": 600, "items": 200})
    data = prepare(made_up.frame, made_up.schema)
    rows, test = data.of("test"), Split.of(data)
    cold = data.cold(rows, "item")
    assert (test.cold["item"] == cold).all() and (test.users == data.users(rows)).all()
    scores = np.where(cold, 0.5, data.labels[rows])
    made = result("raw", 0, 1, test=test, predictions=scores)
    other = result("alt_ctr", 0, 1, test=test, predictions=np.full(len(rows), 0.5))
    table = tables.cold_table(pd.DataFrame([made, other])).set_index(["test rows of", "variant"])
    raw, aligned = VARIANTS["raw"].label, VARIANTS["alt_ctr"].label
    assert table.loc[("cold items", raw), "AUC"] == 0.5
    assert table.loc[("cold items", raw), "rows"] == cold.sum()
    assert table.loc[("warm items", raw), "AUC"] == 1.0
    assert table.loc[("warm items", aligned), "AUC − raw"] == -0.5
    assert table.loc[("warm items", raw), "best"] == "●"
    assert table.loc[("warm items", aligned), "best"] == ""


def runs(setting: str, variant: str, *skills: float, **columns: Any) -> list[dict[str, Any]]:
    """The runs of a setting of a study, a seed each."""
    cost = {"pretraining_rows": 1000, "pretraining_seconds": 5.0, "setting": setting}
    return [result(variant, seed, of, **cost | columns) for seed, of in enumerate(skills)]


@pytest.fixture
def study() -> pd.DataFrame:
    skills = {"two": (0.5, 0.5), "one": (0.4, 0.6), "none": (-1.0, -1.0)}
    return pd.DataFrame([run for name, of in skills.items() for run in runs(name, "alt_ctr", *of)])


def planned(against: Any = "first setting", **variants: list[str]) -> Study:
    """A study with the settings of `study`, each of `alt_ctr` unless it has variants of its own."""
    names = ("two", "one", "none")
    settings = {name: {"variants": variants.get(name, ["alt_ctr"])} for name in names}
    return Study(settings=settings, seeds=[0, 1], against=against)


def test_a_setting_without_runs_has_a_line_and_is_no_base(study: pd.DataFrame) -> None:
    table = tables.study_table(study[study["setting"] != "two"], planned()).set_index("setting")
    assert pd.isna(table.loc["two", "AUC"]) and table.loc["two", "seeds"] == 0
    assert table["difference"].isna().all() and "●" in table["best"].tolist()
    assert tables.study_table(study[:0], planned())["AUC"].isna().all()


def test_only_seeds_that_both_sides_have_are_compared(study: pd.DataFrame) -> None:
    whole = tables.study_table(study, planned()).set_index("setting")
    table = tables.study_table(study.drop(1), planned()).set_index("setting")
    first = study["auc"][2] - study["auc"][0]
    assert table.loc["one", "difference"] == pytest.approx(first)
    assert whole.loc["one", "difference"] != pytest.approx(first)
    assert table.loc["one", "seeds improved"] == "0 of 1"


def test_a_study_is_compared_with_its_first_setting_in_pairs(study: pd.DataFrame) -> None:
    table = tables.study_table(study, planned()).set_index("setting")
    means = study.groupby("setting")["auc"].mean()
    assert table.loc["one", "difference"] == pytest.approx(means["one"] - means["two"])
    assert table.loc["one", "low"] < table.loc["one", "difference"] < table.loc["one", "high"]
    assert table.loc["one", "seeds improved"] == "1 of 2" and table.loc["one", "against"] == "two"
    assert pd.isna(table.loc["two", "difference"]) and pd.isna(table.loc["two", "p (BH)"])
    assert (table["pretraining rows"] == 1000).all()
    # The smallest of two p-values is doubled, the largest stays.
    assert table["p (BH)"].max() == table["p"].max()
    assert table.loc["none", "p (BH)"] == pytest.approx(2 * table.loc["none", "p"])
    assert table.loc["none", "best"] == ""
    assert "●" in table["best"].tolist()


def test_a_study_may_compare_with_controls(study: pd.DataFrame) -> None:
    study = pd.concat([study, pd.DataFrame(runs("two", "raw", 0.1, 0.1))])
    table = tables.study_table(study, planned("control", two=["alt_ctr", "raw"]))
    tested = table[table["difference"].notna()]
    assert tested[["variant", "setting"]].to_numpy().tolist() == [["ALT_ctr", "two"]]
    assert tested["difference"].iloc[0] > 0
    assert tested["against"].iloc[0] == VARIANTS["raw"].label


def test_settings_with_other_data_are_not_ranked(study: pd.DataFrame) -> None:
    study = study[study["setting"] != "one"]  # whose two seeds differ too much
    names = list(dict.fromkeys(study["setting"]))
    raw = [run for name in names for run in runs(name, "raw", 3, 3)]
    settings = {name: {"data": {"train_share": 0.1}} for name in names}
    variants = ["raw", "alt_ctr"]
    of = Study(settings=settings, seeds=[0, 1], variants=variants, against="control")
    table = tables.study_table(pd.concat([study, pd.DataFrame(raw)]), of)
    assert table["best"].tolist() == ["●", ""] * 2


def test_runs_on_other_rows_are_not_compared(study: pd.DataFrame) -> None:
    study.loc[study["setting"] == "one", "data"] = "another key"
    table = tables.study_table(study, planned()).set_index("setting")
    assert pd.isna(table.loc["one", "difference"]) and pd.notna(table.loc["none", "difference"])


def test_settings_with_a_variant_each_are_compared_with_each_other() -> None:
    found = pd.DataFrame([*runs("DCNv2", "raw", 0.1), *runs("CTR-BERT", "ctr_bert", 1.0)])
    settings = {"DCNv2": {"variants": ["raw"]}, "CTR-BERT": {"variants": ["ctr_bert"]}}
    table = tables.study_table(found, Study(settings=settings, seeds=[0])).set_index("setting")
    assert table.loc["CTR-BERT", "difference"] > 0 and pd.isna(table.loc["DCNv2", "difference"])
    assert table["best"].tolist() == ["", "●"]
    assert table["variant"].tolist() == ["ID-based model", "two PLMs"]


def test_budgets_are_told_by_kind_of_model() -> None:
    config = load_profile("quick")
    told = tables.budgets(config)
    assert (
        "ID-based models at most 20 epochs with batch size 1024, PLMs at most 1 epoch with" in told
    )
    told = tables.budgets(replace(config, seeds={"raw": [0]}))
    assert told.startswith("The budget: ID-based models at most 20 epochs") and "PLM" not in told
