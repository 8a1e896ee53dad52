"""What tuning searches: rows of tables, the entries that each tries, and the runs of its trials.

All rows have one space and one number of trials, and are judged by the AUC of the validation split.
Pretraining is searched for ALT_ctr of the main table. ALT_lang and ALT_both start from what was
chosen for it, as in the paper, and so does ALT_ctr with another ID-based model: they search their
finetuning alone. A row that says something else of its data, sentences, PLM or alignment searches a
pretraining of its own.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any

from altlib.config import VARIANTS, Finetuning, key
from altlib.faults import nearest
from altlib.lab.keys import finetuning_key
from altlib.profile import (
    Profile,
    Range,
    content,
    find,
    in_setting,
    made_of,
    mapping,
    merged,
    nested,
    placed,
    with_changes,
    with_preset,
)

Place = tuple[str, str, str]
"""Notebook, study and setting of a row; three empty ones for a row of the main table."""


SEARCHED = r"(alignment|pretraining|finetuning\.\w+)\.(?!seed$)|(alpha|ctr\.dropout|plm\.dropout)$"
"""Entries that rows may have of their own: on others, as the split or the size of a model, rows
have to agree, or weights would not fit."""


@dataclass(frozen=True)
class Search:
    """How a row is tuned.

    Attributes:
        profile: its name, or the path of its file.
        variant: what is finetuned.
        places: where tables have this row.
        entries, base, setting: of the profile, of the study and all trials, and of the study's
            setting; as for `in_setting`.
        space: what each entry may be, by its path.
        first: values of the first trial, by path.
        trials: how many.
        leader: the search of ALT_ctr, where the row starts from the pretraining chosen there.
    """

    profile: str
    variant: str
    places: tuple[Place, ...]
    entries: Mapping[str, Any] = field(repr=False)
    base: Mapping[str, Any]
    setting: Mapping[str, Any]
    space: Mapping[str, Range | list[Any]]
    first: Mapping[str, Any]
    trials: int
    leader: "Search | None" = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """Words for people, and the name of the study in Optuna's storage."""
        _, study, setting = self.places[0]
        return f"{study}, {setting}: {self.variant}" if study else self.variant

    def run(
        self, values: Mapping[str, Any], aligned: Mapping[str, Any] | None = None
    ) -> Finetuning:
        """The run of a trial.

        Args:
            values: of the searched entries, by path.
            aligned: those chosen for ALT_ctr, where the row has a `leader`.
        """
        entries = {**self.entries, "tuned": {"alt_ctr": placed(aligned)} if aligned else {}}
        own = {"tuned": {self.variant: placed(values)}}
        whole = in_setting(entries, self.base, {**self.setting, **own})
        return made_of(whole, find(self.profile)).run(self.variant, 0)

    def key(self) -> str:
        """Of what it asks for; the number of trials may change."""
        space = {
            name: [of] if isinstance(of, list) else vars(of) for name, of in self.space.items()
        }
        return key(space, finetuning_key(self.run(self.first)))


def searches(name: str) -> list[Search]:
    """How the rows of a profile are tuned, leaders first.

    Raises:
        ValueError: the profile says nothing of tuning, or something wrong.
    """
    path = find(name)
    entries = content(path, tuned=False)
    profile = made_of(entries, path)
    tuning = profile.tuning
    if tuning is None:
        raise ValueError(f"{path.name} has no entry 'tuning', which says what is searched.")
    notebooks = {study: notebook for notebook, of in profile.studies.items() for study in of}
    for study in tuning.studies:
        if study not in notebooks:
            raise ValueError(
                f"{path.name}: tuning.studies names '{study}'; {nearest(study, notebooks)}"
            )
    space_of: dict[str, Range | list[Any]] = {}
    for entry, values in tuning.space.items():
        if not re.match(SEARCHED, entry):
            raise ValueError(
                f"{path.name}: tuning.space names '{entry}', which cannot be searched: entries of "
                "alignment, pretraining and finetuning can, and alpha, ctr.dropout, plm.dropout."
            )
        some = values.some if isinstance(values, Range) else values
        try:
            tried = [made_of(with_changes(entries, nested(entry, one)), path) for one in some]
        except ValueError as error:
            raise ValueError(f"In tuning.space of {error}") from None
        if not isinstance(values, Range):  # in the entry's own type: YAML takes 1e-3 for text
            values = [attrgetter(entry)(one) for one in tried]
        space_of[entry] = values
    rest = {name: of for name, of in entries.items() if name not in ("studies", "tuning")}
    rows: list[tuple[Place, str, dict[str, Any], dict[str, Any]]] = [
        (("", "", ""), variant, {}, {}) for variant in profile.seeds
    ]
    for study in tuning.studies:
        of = profile.studies[notebooks[study]][study]
        for setting, given in of.settings.items():
            changes = {name: value for name, value in given.items() if name != "variants"}
            changes = with_preset(changes)
            for variant in given.get("variants", of.variants):
                place = (notebooks[study], study, setting)
                rows.append((place, variant, of.base, changes))
    found: dict[str, Search] = {}
    following = set[str]()
    for place, variant, base, changes in rows:
        trial = merged(base, tuning.base)  # trials have their own share of the rows
        made = made_of(in_setting(rest, trial, changes), path)
        said = changes.keys() | base.keys() - {"data"}  # which may be a share of the rows only
        own = said & {"data", "text", "plm", "alignment", "pretraining", "preset"}
        main = variant == "alt_ctr" and not place[1]
        starts = VARIANTS[variant].aligned and (main or bool(own) or "alt_ctr" not in profile.seeds)
        space = {
            entry: values
            for entry, values in space_of.items()
            if reads(made, variant, starts, entry)
            and not fixed(changes, entry)
            and not fixed(base, entry)
        }
        first = {entry: attrgetter(entry)(made) for entry in space}
        for entry, value in first.items():
            values = space[entry]
            if not (values.holds(value) if isinstance(values, Range) else value in values):
                raise ValueError(
                    f"{path.name}: tuning.space.{entry} does not hold {value!r}, the value of the "
                    f"profile itself{f' in {place[2]!r}' if place[2] else ''}, with which a search "
                    "begins."
                )
        one = Search(name, variant, (place,), rest, trial, changes, space, first, tuning.trials)
        same = finetuning_key(one.run(first))
        if same in found:
            found[same] = replace(found[same], places=(*found[same].places, place))
            continue
        found[same] = one
        if VARIANTS[variant].aligned and not starts:
            following.add(same)
    leader = next((one for one in found.values() if one.name == "alt_ctr"), None)
    leading = [one for same, one in found.items() if same not in following]
    return [*leading, *(replace(found[same], leader=leader) for same in found if same in following)]


def reads(profile: Profile, variant: str, starts: bool, entry: str) -> bool:
    """Whether a run of a variant depends on an entry of the profile."""
    of = VARIANTS[variant]
    part, _, rest = entry.partition(".")
    alignment = profile.alignment
    needs = {"noise": alignment.mtm, "contrast": alignment.icl, "temperature": alignment.icl}
    return {
        # Of aligned variants it is that of the pretraining, too.
        "ctr": of.reads_ids and (starts or not of.aligned),
        "plm": of.reads_text,
        "alpha": of.kind == "both",
        "finetuning": rest.startswith(f"{of.budget}."),
        "alignment": starts and needs.get(rest, True),
        "pretraining": starts,
    }[part]


def fixed(changes: Mapping[str, Any], entry: str) -> bool:
    """Whether the entries of a setting say what an entry is."""
    *above, last = entry.split(".")
    return last in mapping(dict(changes), *above)


def chosen(found: Iterable[tuple[Search, Mapping[str, Any]]]) -> dict[str, Any]:
    """What goes into the file that a profile reads, from searches and their chosen values."""
    whole: dict[str, Any] = {}
    for search, values in found:
        tuned: dict[str, Any] = {"tuned": {search.variant: placed(values)}}
        for notebook, study, setting in search.places:
            below = {"studies": {notebook: {study: {"settings": {setting: tuned}}}}}
            whole = merged(whole, below if study else tuned)
    return whole
