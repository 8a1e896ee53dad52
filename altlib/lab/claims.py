"""What the paper claims, against what a profile found: held, not held, or not tested.

The claims are those of arXiv 2310.19453 in this project's words, but for that about equal numbers
of epochs, a check of ours. A claim about a difference in AUC holds if every interval that it speaks
of lies on its side of 0; one interval that includes 0 is enough for "not held", which then means no
more than that the data did not show it. Claims about the best model, RelaImpr., recovered words,
attention and cost hold as the functions below say.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd

from altlib.config import VARIANTS

RAW = VARIANTS["raw"].label
Finding = tuple[bool, str, pd.DataFrame] | None
"""Whether a claim held, the figures that say so, and the lines of the table that they are from;
None if the table does not test it."""
Test = Callable[[pd.DataFrame], Finding]
"""What holds a claim against its table, which has a line at least."""


def differences(column: str, *values: str, sign: int = 1, against: str = "") -> Test:
    """A claim that lines of a table differ from what they are compared with, in AUC.

    It is not tested where one of the lines is blank.

    Args:
        column: where `values` stand; all compared lines of a study if there are none.
        sign: 1 if the differences should lie above 0, -1 if below.
        against: what lines of a study are compared with; those compared with others do not count.
    """

    def test(table: pd.DataFrame) -> Finding:
        if "metric" in table:
            table = table[table["metric"] == "AUC"]
        name = "difference" if "difference" in table else "AUC − raw"
        if values:
            lines = table[table[column].isin(values)]
        else:
            lines = table[(table["against"] != "") | table["AUC"].isna()]
        if lines[name].isna().any():
            return None
        if against:
            lines = lines[lines["against"] == against]
        if set(values) - set(lines[column]) or not len(lines):
            return None
        held = bool(((lines["low"] > 0) if sign > 0 else (lines["high"] < 0)).all())
        figures = [
            f"{line[column]} {line[name]:+.4f} [{line['low']:+.4f}, {line['high']:+.4f}], "
            f"seeds improved: {line['seeds improved']}"
            for _, line in lines.iterrows()
        ]
        return held, "; ".join(figures), lines

    return test


def best(setting: str) -> Test:
    """A claim that a setting's AUC is the highest of a study, and alone so."""

    def test(table: pd.DataFrame) -> Finding:
        if setting not in set(table["setting"]):
            return None
        missing = table.loc[table["AUC"].isna(), "setting"]
        table = table[table["AUC"].notna()]
        if setting in set(missing):
            return None
        marked = table[table["best"] == "●"]
        alone = list(marked["setting"]) == [setting]
        if alone and len(missing):
            return None  # one that is missing may be better
        figures = ", ".join(
            f"{n} {a:.4f}" for n, a in zip(table["setting"], table["AUC"], strict=True)
        )
        without = f"; without {', '.join(missing)}" if len(missing) else ""
        return alone, figures + without, table

    return test


def improvement(least: float) -> Test:
    """A claim that the RelaImpr. of some ALT variant over raw reaches `least`."""

    def test(table: pd.DataFrame) -> Finding:
        lines = table[table["variant"].str.startswith("ALT") & table["RelaImpr."].notna()]
        if not len(lines):
            return None
        lines = lines.sort_values("RelaImpr.").iloc[-1:]
        top = lines.iloc[0]
        held = bool(top["RelaImpr."] >= least and top["low"] > 0)
        return held, f"at most {top['RelaImpr.']:+.2%}, of {top['variant']}", lines

    return test


def degeneration(table: pd.DataFrame) -> Finding:
    """Whether token-level masks let more words come back without the IDs, at every look."""
    shares = table.groupby(["rows", "setting"], sort=False)["with other IDs"].mean()
    looks = shares.unstack("rows")
    kinds = [looks[looks.index.str.startswith(kind)] for kind in ("token", "field")]
    if not all(map(len, kinds)):
        return None
    figures = "; ".join(
        f"after {rows:,} rows, with other IDs: "
        + ", ".join(f"{setting} {share:.1%}" for setting, share in looks[rows].dropna().items())
        for rows in (looks.columns.min(), looks.columns.max())
    )
    return bool((kinds[0].min() > kinds[1].max()).all()), figures, table


def own_words(table: pd.DataFrame) -> Finding:
    """Whether fields attend to their own words more than before pretraining, than an even spread
    would, and than with sentences of other rows (else it is the place in the template that they
    attend to), and whether most fields read no other field's words more."""
    own = table[table["sentences"] == "own"].set_index("checkpoint")
    shuffled = table[table["sentences"] == "of other rows"]
    if not {"before pretraining", "after pretraining"} <= set(own.index) or not len(shuffled):
        return None
    before, after = own.loc["before pretraining"], own.loc["after pretraining"]
    other = shuffled.iloc[0]
    lines = {"after": after, "before": before, "with sentences of other rows": other}
    figures = [
        f"{name} {line['own words']:.3f} [{line['low']:.3f}, {line['high']:.3f}]"
        for name, line in lines.items()
    ]
    figures.append(f"uniform {after['uniform']:.3f}")
    figures.append(f"{after['read most by']} of {after['fields']} fields read theirs most")
    most = max(before["high"], other["high"], after["uniform"])
    held = after["low"] > most and 2 * after["read most by"] > after["fields"]
    return bool(held), "; ".join(figures), table


def same_cost(table: pd.DataFrame) -> Finding:
    """Whether a call of ALT_ctr takes within 5 % of one of the raw model."""
    ratio = float(table["ALT_ctr / raw"].iloc[0])
    return (
        ratio <= 1.05,
        f"time of a call of ALT_ctr over one of raw: {ratio:.3f} (up to 1.05 allowed)",
        table,
    )


@dataclass(frozen=True)
class Claim:
    """A claim in words, the table that it is held against, and how."""

    text: str
    source: str
    test: Test


CLAIMS = (
    Claim("ALT_ctr beats the same ID-based model without alignment.",
          "controls", differences("variant", "ALT_ctr")),
    Claim("ALT_ctr beats the same ID-based model after any number of epochs, the same for both.",
          "epochs", differences("setting", against=RAW)),
    Claim("ALT_lang beats the same PLM without alignment.",
          "controls", differences("variant", "ALT_lang")),
    Claim("ALT_both beats the same two models without alignment.",
          "controls", differences("variant", "ALT_both")),
    Claim("ALT_both beats the raw ID-based model.",
          "main", differences("variant", "ALT_both")),
    Claim("ALT improves AUC by up to 5.73 %, taken as RelaImpr. over the raw ID-based model.",
          "main", improvement(0.0573)),
    Claim("ALT_both is the best of all models, baselines included.",
          "all_models", best("ALT_both")),
    Claim("ALT_ctr gains whatever the ID-based model.",
          "backbones", differences("setting", against=RAW)),
    Claim("ALT_ctr gains on every data set.",
          "data_sets", differences("setting", against=RAW)),
    Claim("ALT_ctr gains with PLMs of every size.",
          "plm_sizes", differences("setting", against=RAW)),
    Claim("Each loss contributes: leaving one out costs AUC.", "losses",
          differences("setting", "without MLM", "without MTM", "without ICL", sign=-1,
                      against="MLM + MTM + ICL")),
    Claim("Masking whole fields is better than masking tokens.",
          "parts", differences("setting", "token masking", sign=-1, against="default")),
    Claim("Cross-attention over the words is better than their mean.",
          "parts", differences("setting", "mean of the words", sign=-1, against="default")),
    Claim("With token-level masks more words come back early and without the IDs than with "
          "field-level masks.", "degeneration_recovery", degeneration),
    Claim("A masked field attends to its own words.", "own_words", own_words),
    Claim("ALT_ctr costs no more to serve than the raw ID-based model.", "same_cost", same_cost),
)  # fmt: skip


def table(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Each claim with its verdict, the figures that say so, and what these stand on.

    Args:
        tables: "main", "controls", each study's table and the measurements, by name.
    """
    lines = []
    for claim in CLAIMS:
        source = tables.get(claim.source, pd.DataFrame())
        found = claim.test(source) if len(source) else None
        verdict = "not tested" if found is None else "held" if found[0] else "not held"
        lines.append(
            {
                "claim": claim.text,
                "here": verdict,
                "figures": found[1] if found else "–",
                "stands on": stands_on(claim.source, found[2]) if found else "–",
            }
        )
    return pd.DataFrame(lines)


def stands_on(name: str, lines: pd.DataFrame) -> str:
    """A table's name, and the training rows and seeds of lines of it."""
    words = [name.replace("_", " ")]
    for column in ("train rows", "seeds"):
        if column in lines and len(numbers := lines.loc[lines[column] > 0, column]):
            ends = dict.fromkeys(f"{int(end):,}" for end in (numbers.min(), numbers.max()))
            words.append(f"{' to '.join(ends)} {column}")
    return ", ".join(words)
