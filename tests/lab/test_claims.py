"""Claims follow from intervals, and from nothing else."""

from pathlib import Path

import pandas as pd
import pytest

from altlib.lab import claims, show, stamps
from altlib.profile import load_profile


def verdict(text: str, **tables: pd.DataFrame) -> tuple[str, str]:
    table = claims.table(tables).set_index("claim")
    (line,) = [line for claim, line in table.iterrows() if str(claim).startswith(text)]
    return line["verdict"], line["figures"]


def study(against: str = "ID-based model (raw)", **intervals: tuple[float, float]) -> pd.DataFrame:
    lines = [
        {"setting": name.replace("_", " "), "difference": (a + b) / 2, "low": a, "high": b}
        for name, (a, b) in intervals.items()
    ]
    table = pd.DataFrame(lines).assign(AUC=0.7, against=against)
    return table.assign(**{"seeds improved": "1 of 2"})


def test_without_tables_nothing_is_tested() -> None:
    assert set(claims.table({})["verdict"]) == {"not tested"}


@pytest.mark.parametrize(
    ("intervals", "expected"),
    [
        ({"DCNv2": (0.1, 0.2), "DeepFM": (0.01, 0.02)}, "supported"),
        ({"DCNv2": (0.1, 0.2), "DeepFM": (-0.01, 0.02)}, "undecided"),
        ({"DCNv2": (0.1, 0.2), "DeepFM": (-0.0005, 0.0005)}, "contradicted"),
        ({"DCNv2": (0.1, 0.2), "DeepFM": (-0.0005, 0.0011)}, "undecided"),
        ({"DCNv2": (0.1, 0.2), "DeepFM": (-0.02, -0.01)}, "contradicted"),
        ({"DCNv2": (-0.2, -0.1)}, "contradicted"),
        ({"DCNv2": (-0.001, 0.0005), "DeepFM": (0.0001, 0.0009)}, "no difference"),
        ({"DCNv2": (-0.0011, 0.0005)}, "undecided"),
    ],
)
def test_a_verdict_follows_from_every_interval(
    intervals: dict[str, tuple[float, float]], expected: str
) -> None:
    word, figures = verdict("ALT_ctr improves every", backbones=study(**intervals))
    assert word == expected and word in claims.VERDICTS
    assert all(name in figures for name in intervals)


def test_a_verdict_that_hangs_on_the_regularisation_says_so() -> None:
    text = "ALT_ctr beats the same ID-based model without"
    controls = study(x=(0.002, 0.004)).assign(variant="ALT_ctr")
    settings = study(none=(0.01, 0.02), tuned=(-0.0005, 0.0004))
    word, figures = verdict(text, controls=controls, regularisation=settings)
    assert word == "supported"
    assert "depends on the study regularisation (none: supported, tuned: no difference)" in figures
    once = settings.assign(pretrainings=[1, 3])
    _, figures = verdict(text, controls=controls, regularisation=once)
    assert "depends on the study regularisation (none: undecided, tuned: no" in figures
    alike = settings.assign(low=0.01, high=0.02)
    assert "depends" not in verdict(text, controls=controls, length=alike)[1]


def test_one_seed_one_pretraining_or_one_of_many_comparisons_decides_nothing() -> None:
    table = study(DCNv2=(0.01, 0.02), DeepFM=(0.01, 0.02)).assign(seeds=3)
    text = "ALT_ctr improves every"
    assert verdict(text, backbones=table)[0] == "supported"
    one = table.assign(**{"seeds improved": ["2 of 3", "1 of 1"]})  # raw has one seed of three
    word, figures = verdict(text, backbones=one)
    assert word == "undecided" and "DeepFM +0.0150 [+0.0100, +0.0200], one seed" in figures
    once = table.assign(pretrainings=[3, 1])
    word, figures = verdict(text, backbones=once)
    assert word == "undecided" and "[+0.0100, +0.0200], one pretraining: undecided" in figures
    assert verdict(text, backbones=table.assign(pretrainings=[3, 0]))[0] == "supported"
    by_chance = table.assign(**{"p (BH)": [0.01, 0.06]})
    assert verdict(text, backbones=by_chance)[0] == "undecided"
    same = study(DCNv2=(-0.0005, 0.0005)).assign(seeds=3, **{"p (BH)": 0.9})
    assert verdict(text, backbones=same)[0] == "no difference"


def test_a_verdict_is_a_sentence_to_quote() -> None:
    table = study(DCNv2=(0.01, 0.02)).assign(pretrainings=2, **{"train rows": 5000})
    found = claims.table({"backbones": table}, "MovieLens-1M, split by time")
    sentences = [claims.sentence(line) for _, line in found.iterrows()]
    assert (
        "“ALT_ctr improves every ID-based model” is supported (based on MovieLens-1M, split by "
        "time, table backbones, 5,000 train rows, 2 seeds): "
        "DCNv2 +0.0150 [+0.0100, +0.0200]."
    ) in sentences
    assert sum("was not tested" in sentence for sentence in sentences) == len(sentences) - 1


def test_a_claim_is_not_tested_where_a_line_is_missing_or_has_another_base() -> None:
    table = study(DCNv2=(0.1, 0.2), DeepFM=(0.1, 0.2))
    assert (
        verdict("ALT_ctr improves with", plm_sizes=table.assign(against="DCNv2"))[0] == "not tested"
    )
    both = pd.concat([table, study("PLM (unaligned)", DCNv2=(-0.2, -0.1))])  # of another variant
    assert verdict("ALT_ctr improves on every", data_sets=both)[0] == "supported"
    table.loc[1, ["AUC", "difference", "low", "high"]] = float("nan")
    assert verdict("ALT_ctr improves every", backbones=table)[0] == "not tested"
    table.loc[0, ["low", "high"]] = -0.2, -0.1  # this one decides
    word, figures = verdict("ALT_ctr improves every", backbones=table)
    assert word == "contradicted" and figures.endswith("missing: DeepFM")


def test_a_table_that_was_written_and_read_gives_the_same_verdict() -> None:
    config = load_profile(str(Path(__file__).parents[1] / "tiny.yaml"))
    raw = study(against="", DCNv2=(0.0, 0.0)).assign(difference=float("nan"), best="")
    table = pd.concat([raw, study(DCNv2=(0.1, 0.2)).assign(best="●")], ignore_index=True)
    show.write(table, stamps.report_folder(config), "backbones")
    stamps.stamp("08_backbones", config)
    found = show.read(config, "08_backbones", "backbones")
    assert found.equals(table)
    text = "ALT_ctr improves every"
    assert verdict(text, backbones=found) == verdict(text, backbones=table)
    assert verdict(text, backbones=found)[0] == "supported"


def test_what_leaving_out_should_cost_lies_below_0() -> None:
    three = {f"without_{loss}": (-0.2, -0.1) for loss in ("MLM", "MTM", "ICL")}

    def judge(against: str = "MLM + MTM + ICL", **changed: tuple[float, float]) -> str:
        return verdict("Each loss", losses=study(against, **three | changed))[0]

    assert judge() == "supported"
    assert judge(without_ICL=(0.1, 0.2)) == "contradicted"
    assert judge(without_ICL=(-0.1, 0.2)) == "undecided"
    assert judge("ID-based model (raw)") == "not tested"
    del three["without_ICL"]
    assert judge() == "not tested"


def test_the_best_model_is_alone_the_best() -> None:
    models = pd.DataFrame(
        {"setting": ["DCNv2", "ALT_both"], "AUC": [0.7, 0.8], "best": ["", "●"], "seeds": 3}
    ).assign(pretrainings=[0, 3])
    text = "ALT_both is the best"
    assert verdict(text, all_models=models)[0] == "supported"
    word, figures = verdict(text, all_models=models.assign(seeds=[3, 1]))
    assert word == "undecided" and figures.endswith("one seed or one pretraining")
    assert verdict(text, all_models=models.assign(pretrainings=[0, 1]))[0] == "undecided"
    models.loc[2] = ["P5", float("nan"), "", 0, 0]  # it may be better
    assert verdict(text, all_models=models)[0] == "not tested"
    models["best"] = "●"
    word, figures = verdict(text, all_models=models)
    assert word == "undecided" and "missing: P5" in figures
    models["best"] = ["●", "", ""]
    assert verdict(text, all_models=models)[0] == "contradicted"
    models["seeds"] = [1, 1, 0]
    assert verdict(text, all_models=models)[0] == "undecided"


def test_the_improvement_is_judged_by_its_interval() -> None:
    """Raw has an AUC of 0.6, so that a difference of 0.01 is a RelaImpr. of 10 %."""
    names = ("ALT_ctr", "ALT_lang", "ALT_both")

    def word(low: float, high: float, number: int = 3, seeds: int = 2) -> str:
        middle = (low + high) / 2
        line = {"AUC − raw": middle, "low": low, "high": high, "RelaImpr.": middle / 0.1}
        lines = [line | {"variant": n, "seeds improved": f"1 of {seeds}"} for n in names[:number]]
        raw = {"variant": "ID-based model (raw)", "AUC": 0.6, "seeds improved": ""}
        return verdict("ALT improves", main=pd.DataFrame([raw, *lines]))[0]

    assert word(0.006, 0.008) == "supported"
    assert word(0.005, 0.007) == "supported"  # 0.00573 less what counts as no difference
    assert word(0.0045, 0.008) == "undecided"
    assert word(0.003, 0.0057) == "contradicted"
    assert word(-0.001, 0.001) == "contradicted"  # no difference at all
    assert word(0.006, 0.008, seeds=1) == word(0.003, 0.0057, seeds=1) == "undecided"
    assert word(0.003, 0.0057, number=1) == "undecided"  # those that are missing may reach it


def test_degeneration_is_seen_at_every_look() -> None:
    curves = pd.DataFrame(
        {
            "setting": ["field 0.15", "field 0.15", "token 0.15", "token 0.15"],
            "rows": [100, 200, 100, 200],
            "with other IDs": [0.2, 0.4, 0.5, 0.5],
        }
    )
    text = "Early in training"
    here, figures = verdict(text, degeneration_recovery=curves)
    assert here == "supported" and "token 0.15 50.0%" in figures and "100 rows" in figures
    other = curves.assign(setting=curves["setting"].replace("token 0.15", "token 0.6"))
    assert verdict(text, degeneration_recovery=other)[0] == "not tested"
    assert verdict(text, degeneration_recovery=curves[:3])[0] == "not tested"
    curves.loc[1, "with other IDs"] = 0.495  # half a percentage point is no difference
    here, figures = verdict(text, degeneration_recovery=curves)
    assert here == "undecided"
    assert "lead of token masks +0.5 points, at 0.15 after 200 rows" in figures
    curves.loc[[0, 1], "with other IDs"] = 0.6
    assert verdict(text, degeneration_recovery=curves)[0] == "contradicted"


def test_a_verdict_names_the_rows_and_seeds_that_it_stands_on() -> None:
    table = study(DCNv2=(0.1, 0.2), DeepFM=(0.1, 0.2))
    # A line that is compared with nothing.
    alone = {"against": "", "seeds improved": "", "train rows": 10, "AUC": 0.6}
    made = {"train rows": 5000, "seeds improved": ["1 of 3", "2 of 2"], "pretrainings": 2}
    table = pd.concat([table.assign(**made), pd.DataFrame([alone])])
    lines = claims.table({"backbones": table}).set_index("verdict")
    assert lines.loc["supported", "based on"] == "table backbones, 5,000 train rows, 2 to 3 seeds"
    assert set(lines.loc["not tested", "based on"]) == {"–"}


def test_a_field_draws_on_what_hiding_costs() -> None:
    table = pd.DataFrame(
        {
            "masked field": ["age", "genre", "title"],
            "own words (nats)": [0.5, 0.2, 0.0],
            "low": [0.4, 0.1, -0.1],
            "high": [0.6, 0.3, 0.1],
            "of its own": [True, True, False],
            "needs most": ["age", "title", "age"],
            "own attention": [0.9, 0.0, 0.1],
            "pretrainings": [3, 3, 3],
        }
    )
    word, figures = verdict("A masked field draws", needed_words=table)
    assert word == "supported" and "2 of 3 fields, after each of 3 pretrainings" in figures
    word, figures = verdict("A masked field draws", needed_words=table.assign(pretrainings=1))
    assert word == "undecided" and figures.endswith("; one pretraining")
    assert "genre +0.20 nats [+0.10, +0.30], needs title most, attention 0%" in figures
    assert verdict("A masked", needed_words=table.assign(low=[0.4, -0.1, -0.1]))[0] == "undecided"
    others = table.assign(low=-0.1, **{"of its own": False})
    assert verdict("A masked field", needed_words=others)[0] == "contradicted"


def test_alignment_may_cost_five_percent_at_serving() -> None:
    for ratio, expected in ((1.04, "supported"), (1.06, "contradicted")):
        table = pd.DataFrame({"ALT_ctr / raw": [ratio]})
        assert verdict("ALT_ctr costs no more", same_cost=table)[0] == expected
