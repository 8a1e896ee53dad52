"""What the paper claims, against what a profile found, in four words.

The claims are those of arXiv 2310.19453 in this project's words, but for that about equal numbers
of epochs, a check of ours. A difference in AUC is judged by its 95 % interval:

    supported       the interval lies on the side that the claim says
    contradicted    it lies on the other side
    no difference   it lies within ±0.001: what there may be is too small to matter
    undecided       it tells none of these apart: too few rows or seeds; so is what a single seed
                    shows, or is no finding once p is corrected for the comparisons of its table

A claim about several differences is supported if all of them are, contradicted if one is, and
without difference if all are; whatever else they are, it is undecided.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from IPython.display import Markdown

from altlib.config import VARIANTS
from altlib.lab import show

MARGIN = 0.001
"""Of AUC: a smaller difference is none."""
VERDICTS = ("supported", "contradicted", "no difference", "undecided", "not tested")
SUPPORTED, CONTRADICTED, NONE, UNDECIDED, NOT_TESTED = VERDICTS
RAW = VARIANTS["raw"].label
ALIGNED = [of.label for of in VARIANTS.values() if of.control]
Finding = tuple[str, str, pd.DataFrame] | None
"""A verdict, the figures that say so, and the lines of the table that they are from; None if the
table does not test the claim."""
Test = Callable[[pd.DataFrame], Finding]
"""What holds a claim against its table, which has a line at least."""


def word_for(line: pd.Series, sign: int = 1) -> str:
    """The word for a line of a table, by the interval of its difference in AUC.

    Args:
        line: a single seed, a single pretraining, or a difference that is no finding among all
            that the table compares, leaves it undecided.
        sign: 1 if the difference should lie above 0, -1 if below.
    """
    low, high = line["low"], line["high"]
    if single(line):
        return UNDECIDED
    if max(abs(low), abs(high)) <= MARGIN:
        return NONE
    if not (low > 0 or high < 0) or line.get("p (BH)", 0.0) >= 0.05:
        return UNDECIDED
    return SUPPORTED if (low > 0) == (sign > 0) else CONTRADICTED


def pairs(line: pd.Series) -> int:
    """How many seeds, of runs on both sides, the difference of a line stands on."""
    return int(line["seeds improved"].rpartition(" ")[2])


def single(line: pd.Series) -> str:
    """What a line has only one of, a seed or a pretraining, in words; empty if it has several.

    Pretrainings differ by more than the seeds that start from one of them.
    """
    if pairs(line) < 2:
        return "one seed"
    return "one pretraining" if line.get("pretrainings") == 1 else ""


def together(words: Iterable[str]) -> str:
    """The word for a claim that several differences lie on one side of 0."""
    found = set(words)
    if len(found) == 1:
        return found.pop()
    return CONTRADICTED if found & {CONTRADICTED, NONE} else UNDECIDED


def differences(column: str, *values: str, sign: int = 1, against: str = "") -> Test:
    """A claim that lines of a table differ from what they are compared with, in AUC.

    Where a line is blank, the others can contradict it; otherwise it is not tested.

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
        missing = list(lines.loc[lines[name].isna(), column])
        missing += sorted(set(values) - set(lines[column]))
        lines = lines[lines[name].notna()]
        if against:
            lines = lines[lines["against"] == against]
        words = [word_for(line, sign) for _, line in lines.iterrows()]
        word = together(words) if words else NOT_TESTED
        if not words or (missing and word != CONTRADICTED):
            return None
        figures = [
            f"{line[column]} {line[name]:+.4f} [{line['low']:+.4f}, {line['high']:+.4f}]"
            + (f", {single(line)}" if single(line) else "")
            + (f": {own}" if len(words) > 1 else "")
            for own, (_, line) in zip(words, lines.iterrows(), strict=True)
        ]
        figures += [f"missing: {', '.join(missing)}"] if missing else []
        return word, "; ".join(figures), lines

    return test


def best(setting: str) -> Test:
    """A claim that a setting's AUC is the highest of a study, and alone so."""

    def test(table: pd.DataFrame) -> Finding:
        missing = table.loc[table["AUC"].isna(), "setting"]
        if setting in set(missing) or setting not in set(table["setting"]):
            return None
        table = table[table["AUC"].notna()]
        marked = list(table.loc[table["best"] == "●", "setting"])
        word = UNDECIDED if setting in marked else CONTRADICTED
        if marked == [setting]:
            if len(missing):
                return None  # one that is missing may be better
            word = SUPPORTED
        few = table["seeds"].min() == 1 or (table["pretrainings"] == 1).any()
        word = UNDECIDED if few else word
        top = table.sort_values("AUC", ascending=False).head(3)
        figures = ", ".join(f"{n} {a:.4f}" for n, a in zip(top["setting"], top["AUC"], strict=True))
        own = table.loc[table["setting"] == setting, "AUC"].iloc[0]
        figures = f"{setting} {own:.4f}; the highest are {figures}"
        figures += ", one seed or one pretraining" if few else ""
        figures += f"; missing: {', '.join(missing)}" if len(missing) else ""
        return word, figures, table

    return test


def improvement(least: float) -> Test:
    """A claim that the RelaImpr. of some ALT variant over raw reaches `least`."""

    def test(table: pd.DataFrame) -> Finding:
        lines = table[table["variant"].str.startswith("ALT") & table["RelaImpr."].notna()]
        if not len(lines):
            return None
        raw = table.loc[table["variant"] == RAW, "AUC"].iloc[0] - 0.5
        lines = lines.assign(least=lines["low"] / raw, most=lines["high"] / raw)
        lines = lines.sort_values("RelaImpr.")
        top = lines.iloc[-1]
        few = [f"{line['variant']} {single(line)}" for _, line in lines.iterrows() if single(line)]
        reached = top["least"] >= least - MARGIN / raw and not single(top)
        word = SUPPORTED if reached else UNDECIDED
        # A variant that is missing, or has one seed or pretraining only, may reach it.
        if (lines["most"] < least).all() and not few and len(lines) == len(ALIGNED):
            word = CONTRADICTED
        interval = f"[{top['least']:+.2%}, {top['most']:+.2%}]"
        figures = f"{top['variant']} {top['RelaImpr.']:+.2%} {interval}, the highest"
        figures += "".join(f"; {words}" for words in few)
        return word, figures, lines.iloc[-1:]

    return test


def degeneration(table: pd.DataFrame) -> Finding:
    """Whether token-level masks let more words come back without the IDs than field-level masks of
    the same ratio, by a percentage point at every look."""
    shares = table.groupby(["rows", "setting"], sort=False)["with other IDs"].mean()
    looks = shares.unstack("rows")
    if looks.isna().any(axis=None):
        return None
    token, field = (
        looks[looks.index.str.startswith(kind)].rename(lambda name: str(name).partition(" ")[2])
        for kind in ("token ", "field ")
    )
    if not len(token) or set(token.index) != set(field.index):
        return None
    figures = "; ".join(
        f"after {rows:,} rows, with other IDs: "
        + ", ".join(f"{setting} {share:.1%}" for setting, share in looks[rows].items())
        for rows in (looks.columns.min(), looks.columns.max())
    )
    gap = token - field.reindex(token.index)
    more, fewer = (gap > 0.01).all(axis=None), (gap < -0.01).all(axis=None)
    word = SUPPORTED if more else CONTRADICTED if fewer else UNDECIDED
    leads: Any = gap.stack()
    ratio, rows = leads.index[leads.argmin()]
    least = f"smallest lead of token masks {100 * leads.min():+.1f} points"
    least += f", at {ratio} after {rows:,} rows"
    return word, f"{figures}; {least}; one pretraining each", table


def needed_words(table: pd.DataFrame) -> Finding:
    """Whether most masked fields need their own words, and more than those of other fields: after
    each of several pretrainings the interval of what hiding them costs lies above 0, and the words
    needed most are the field's own or those of one that determines it."""
    own = (table["low"] > 0) & table["of its own"]
    other = (table["low"] <= 0) & ~table["of its own"]
    figures = "; ".join(
        f"{line['masked field']} {line['own words (nats)']:+.2f} nats [{line['low']:+.2f}, "
        f"{line['high']:+.2f}], "
        + (f"needs {most} most, " if (most := line["needs most"]) != line["masked field"] else "")
        + f"attention {line['own attention']:.0%}"
        for _, line in table.iterrows()
    )
    word = SUPPORTED if own.mean() > 0.5 else CONTRADICTED if other.mean() > 0.5 else UNDECIDED
    number = table["pretrainings"].max()
    if number == 1:
        word, figures = UNDECIDED, f"{figures}; one pretraining"
    after = f", after each of {number} pretrainings" if number > 1 else ""
    return word, f"{own.sum()} of {len(table)} fields{after}; {figures}", table


def same_cost(table: pd.DataFrame) -> Finding:
    """Whether a call of ALT_ctr takes within 5 % of one of the raw model."""
    ratio = float(table["ALT_ctr / raw"].iloc[0])
    return (
        SUPPORTED if ratio <= 1.05 else CONTRADICTED,
        f"time of a call of ALT_ctr over one of raw: {ratio:.3f} (up to 1.05 allowed)",
        table,
    )


@dataclass(frozen=True)
class Claim:
    """A claim in words, the table that it is held against, and how.

    Attributes:
        depends_on: studies of ALT_ctr against raw whose settings may change the verdict.
    """

    text: str
    source: str
    test: Test
    depends_on: tuple[str, ...] = ()


CLAIMS = (
    Claim("ALT_ctr beats the same ID-based model without alignment.",
          "controls", differences("variant", "ALT_ctr"), ("regularisation", "length")),
    Claim("ALT_ctr beats the same ID-based model after any number of epochs, the same for both.",
          "epochs", differences("setting", against=RAW)),
    Claim("ALT_lang beats the same PLM without alignment.",
          "controls", differences("variant", "ALT_lang")),
    Claim("ALT_both beats the same two models without alignment.",
          "controls", differences("variant", "ALT_both")),
    Claim("ALT_both beats the raw ID-based model.",
          "main", differences("variant", "ALT_both")),
    Claim("ALT improves AUC by up to 5.73 %, measured as RelaImpr. over the raw ID-based model.",
          "main", improvement(0.0573)),
    Claim("ALT_both is the best of all models, baselines included.",
          "all_models", best("ALT_both")),
    Claim("ALT_ctr improves every ID-based model.",
          "backbones", differences("setting", against=RAW)),
    Claim("ALT_ctr improves on every data set.",
          "data_sets", differences("setting", against=RAW)),
    Claim("ALT_ctr improves with PLMs of every size.",
          "plm_sizes", differences("setting", against=RAW)),
    Claim("Each loss contributes: leaving one out costs AUC.", "losses",
          differences("setting", "without MLM", "without MTM", "without ICL", sign=-1,
                      against="MLM + MTM + ICL")),
    Claim("Masking whole fields is better than masking tokens.",
          "parts", differences("setting", "token masking", sign=-1, against="default")),
    Claim("Cross-attention over the words is better than their mean.",
          "parts", differences("setting", "mean of the words", sign=-1, against="default")),
    Claim("Early in training, token-level masks let more words be recovered without the IDs than "
          "field-level masks do.", "degeneration_recovery", degeneration),
    Claim("A masked field draws on its own words, or on those of a field that determines it.",
          "needed_words", needed_words),
    Claim("ALT_ctr costs no more to serve than the raw ID-based model.", "same_cost", same_cost),
)  # fmt: skip


def table(tables: Mapping[str, pd.DataFrame], data: str = "") -> pd.DataFrame:
    """Each claim with its verdict, the figures that say so, and what these stand on.

    Args:
        tables: "main", "controls", each study's table and the measurements, by name.
        data: the data set and its split in words, which each verdict is said of.
    """
    lines = []
    for claim in CLAIMS:
        source = tables.get(claim.source, pd.DataFrame())
        found = claim.test(source) if len(source) else None
        word, figures, basis = NOT_TESTED, "–", "–"
        if found is not None:
            word, figures, basis = found[0], found[1], based_on(claim.source, found[2], data)
            figures += "".join(depending(name, tables) for name in claim.depends_on)
        lines.append({"claim": claim.text, "verdict": word, "figures": figures, "based on": basis})
    return pd.DataFrame(lines)


def depending(study: str, tables: Mapping[str, pd.DataFrame]) -> str:
    """What the settings of a study say of ALT_ctr against raw, where they do not agree."""
    lines = tables.get(study, pd.DataFrame({"against": [], "seeds improved": []}))
    lines = lines[(lines["against"] == RAW) & (lines["seeds improved"] != "")]
    words = {line["setting"]: word_for(line) for _, line in lines.iterrows()}
    if len(set(words.values())) < 2:
        return ""
    each = ", ".join(f"{setting}: {word}" for setting, word in words.items())
    return f"; depends on the study {study.replace('_', ' ')} ({each})"


def sentence(line: pd.Series) -> str:
    """A line of `table` as one sentence to quote."""
    words = {
        SUPPORTED: "is supported",
        CONTRADICTED: "is contradicted",
        NONE: "shows no difference",
        UNDECIDED: "is undecided",
    }
    if line["verdict"] == NOT_TESTED:
        return f"“{line['claim'].rstrip('.')}” was not tested."
    return (
        f"“{line['claim'].rstrip('.')}” {words[line['verdict']]} (based on {line['based on']}): "
        f"{line['figures']}."
    )


def based_on(name: str, lines: pd.DataFrame, data: str) -> str:
    """The data, a table's name, and the rows, seeds and rows of pretraining of lines of it."""
    words = [data] if data and name != "data_sets" else []
    words.append(f"table {name.replace('_', ' ')}")
    if "seeds improved" in lines and (lines["seeds improved"] != "").any():
        lines = lines[lines["seeds improved"] != ""]
        lines = lines.assign(seeds=[pairs(line) for _, line in lines.iterrows()])
    for column in ("train rows", "seeds", "pretraining rows"):
        if column in lines and len(numbers := lines.loc[lines[column] > 0, column]):
            ends = dict.fromkeys(f"{int(end):,}" for end in (numbers.min(), numbers.max()))
            few = column == "seeds" and list(ends) == ["1"]
            words.append(f"{' to '.join(ends)} {'seed' if few else column}")
    return ", ".join(words)


def quotes(tables: Mapping[str, pd.DataFrame], data: str = "") -> Markdown:
    """The verdicts on the claims that these tables test, a sentence to quote each."""
    found = table(tables, data)
    tested = found[found["verdict"] != NOT_TESTED]
    said = [show.literal(sentence(line)) for _, line in tested.iterrows()]
    return Markdown(
        "\n\n".join(f"> {words}" for words in said) or "No claim is tested by these tables."
    )
