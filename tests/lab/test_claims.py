"""Claims follow from intervals, and from nothing else."""

from pathlib import Path

import pandas as pd
import pytest

from altlib.lab import claims, show, stamps
from altlib.profile import load_profile


def verdict(text: str, **tables: pd.DataFrame) -> tuple[str, str]:
    table = claims.table(tables).set_index("claim")
    (line,) = [line for claim, line in table.iterrows() if str(claim).startswith(text)]
    return line["here"], line["figures"]


def study(against: str = "ID-based model (raw)", **intervals: tuple[float, float]) -> pd.DataFrame:
    lines = [
        {"setting": name.replace("_", " "), "difference": (a + b) / 2, "low": a, "high": b}
        for name, (a, b) in intervals.items()
    ]
    table = pd.DataFrame(lines).assign(AUC=0.7, against=against)
    return table.assign(**{"seeds improved": "1 of 2"})


def test_without_tables_nothing_is_tested() -> None:
    assert set(claims.table({})["here"]) == {"not tested"}


@pytest.mark.parametrize(
    ("intervals", "expected"),
    [
        ({"DCNv2": (0.1, 0.2), "DeepFM": (0.01, 0.02)}, "held"),
        ({"DCNv2": (0.1, 0.2), "DeepFM": (-0.01, 0.02)}, "not held"),
        ({"DCNv2": (-0.2, -0.1)}, "not held"),
    ],
)
def test_a_claim_holds_if_every_interval_lies_on_its_side(
    intervals: dict[str, tuple[float, float]], expected: str
) -> None:
    here, figures = verdict("ALT_ctr gains whatever", backbones=study(**intervals))
    assert here == expected
    assert all(name in figures for name in intervals)


def test_a_claim_is_not_tested_where_a_line_is_missing_or_has_another_base() -> None:
    table = study(DCNv2=(0.1, 0.2), DeepFM=(0.1, 0.2))
    assert verdict("ALT_ctr gains with", plm_sizes=table.assign(against="DCNv2"))[0] == "not tested"
    both = pd.concat([table, study("PLM (unaligned)", DCNv2=(-0.2, -0.1))])  # of another variant
    assert verdict("ALT_ctr gains on every", data_sets=both)[0] == "held"
    table.loc[1, ["AUC", "difference", "low", "high"]] = float("nan")
    assert verdict("ALT_ctr gains whatever", backbones=table)[0] == "not tested"


def test_a_table_that_was_written_and_read_gives_the_same_verdict() -> None:
    config = load_profile(str(Path(__file__).parents[1] / "tiny.yaml"))
    raw = study(against="", DCNv2=(0.0, 0.0)).assign(difference=float("nan"), best="")
    table = pd.concat([raw, study(DCNv2=(0.1, 0.2)).assign(best="●")], ignore_index=True)
    show.write(table, stamps.report_folder(config), "backbones")
    stamps.stamp("08_backbones", config)
    found = show.read(config, "08_backbones", "backbones")
    assert found.equals(table)
    text = "ALT_ctr gains whatever"
    assert verdict(text, backbones=found) == verdict(text, backbones=table)
    assert verdict(text, backbones=found)[0] == "held"


def test_what_leaving_out_should_cost_lies_below_0() -> None:
    three = {f"without_{loss}": (-0.2, -0.1) for loss in ("MLM", "MTM", "ICL")}

    def judge(against: str = "MLM + MTM + ICL", **changed: tuple[float, float]) -> str:
        return verdict("Each loss", losses=study(against, **three | changed))[0]

    assert judge() == "held"
    assert judge(without_ICL=(0.1, 0.2)) == "not held"
    assert judge("ID-based model (raw)") == "not tested"
    del three["without_ICL"]
    assert judge() == "not tested"


def test_the_best_model_is_alone_the_best() -> None:
    models = pd.DataFrame({"setting": ["DCNv2", "ALT_both"], "AUC": [0.7, 0.8], "best": ["", "●"]})
    assert verdict("ALT_both is the best", all_models=models)[0] == "held"
    models.loc[2] = ["P5", float("nan"), ""]  # it may be better
    assert verdict("ALT_both is the best", all_models=models)[0] == "not tested"
    models["best"] = "●"
    here, figures = verdict("ALT_both is the best", all_models=models)
    assert here == "not held" and "without P5" in figures


def test_the_improvement_counts_only_beside_an_interval_above_0() -> None:
    line = {"variant": "ALT_both", "AUC − raw": 0.02, "low": 0.01, "high": 0.03, "RelaImpr.": 0.06}
    line["seeds improved"] = "1 of 1"
    assert verdict("ALT improves", main=pd.DataFrame([line]))[0] == "held"
    assert verdict("ALT improves", main=pd.DataFrame([line | {"low": -0.01}]))[0] == "not held"
    assert verdict("ALT improves", main=pd.DataFrame([line | {"RelaImpr.": 0.05}]))[0] == "not held"


def test_degeneration_is_seen_at_every_look() -> None:
    curves = pd.DataFrame(
        {
            "setting": ["field 0.15", "field 0.15", "token 0.15", "token 0.15"],
            "rows": [100, 200, 100, 200],
            "with other IDs": [0.2, 0.4, 0.5, 0.5],
        }
    )
    here, figures = verdict("With token-level", degeneration_recovery=curves)
    assert here == "held" and "token 0.15 50.0%" in figures and "100 rows" in figures
    curves.loc[1, "with other IDs"] = 0.6
    assert verdict("With token-level", degeneration_recovery=curves)[0] == "not held"


def test_a_verdict_names_the_rows_and_seeds_that_it_stands_on() -> None:
    table = study(DCNv2=(0.1, 0.2), DeepFM=(0.1, 0.2))
    alone = {"against": "", "seeds": 1, "train rows": 10}  # a line that is compared with nothing
    table = pd.concat(
        [table.assign(seeds=[3, 2], **{"train rows": 5000}), pd.DataFrame([alone | {"AUC": 0.6}])]
    )
    lines = claims.table({"backbones": table}).set_index("here")
    assert lines.loc["held", "stands on"] == "backbones, 5,000 train rows, 2 to 3 seeds"
    assert set(lines.loc["not tested", "stands on"]) == {"–"}


def test_own_words_count_above_what_was_there_before_and_an_even_spread() -> None:
    table = pd.DataFrame(
        {
            "checkpoint": ["before pretraining", "after pretraining", "after pretraining"],
            "sentences": ["own", "own", "of other rows"],
            "own words": [0.10, 0.30, 0.25],
            "low": [0.09, 0.29, 0.24],
            "high": [0.11, 0.31, 0.26],
            "uniform": [0.12, 0.12, 0.12],
            "read most by": [1, 5, 4],
            "fields": [8, 8, 8],
        }
    )
    here, figures = verdict("A masked field attends", own_words=table)
    assert here == "held" and "after 0.300 [0.290, 0.310]" in figures and "0.120" in figures
    assert "5 of 8 fields" in figures
    assert verdict("A masked field", own_words=table.assign(fields=10))[0] == "not held"
    assert verdict("A masked field", own_words=table.assign(uniform=0.3))[0] == "not held"
    place = table.copy()
    place.loc[2, "high"] = 0.295
    assert verdict("A masked field", own_words=place)[0] == "not held"
    table.loc[0, "high"] = 0.295
    assert verdict("A masked field", own_words=table)[0] == "not held"
    assert verdict("A masked field", own_words=table.iloc[1:])[0] == "not tested"


def test_alignment_may_cost_five_percent_at_serving() -> None:
    for ratio, expected in ((1.04, "held"), (1.06, "not held")):
        table = pd.DataFrame({"ALT_ctr / raw": [ratio]})
        assert verdict("ALT_ctr costs no more", same_cost=table)[0] == expected
