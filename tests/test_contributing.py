"""The worked examples of CONTRIBUTING.md run as they stand."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from altlib.config import BACKBONES, CtrConfig, DataConfig
from altlib.data import fetch, sources
from altlib.data.tabular import prepare
from altlib.lab.keys import raw_checksums
from altlib.models import ctr, losses
from altlib.profile import study_runs
from altlib.store import PROJECT

TEXT = (PROJECT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def example(title: str) -> str:
    """The block of code below a heading."""
    section = TEXT.split(f"## {title}\n")[1]
    found = re.search(r"```\w+\n(.*?)```", section, flags=re.DOTALL)
    assert found
    assert len([line for line in found[1].splitlines() if line.strip()]) <= 30
    return found[1]


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """What the examples add is taken out again."""
    known: tuple[dict[str, Any], ...] = (
        *(sources.READERS, fetch.DATA, ctr.MODELS, BACKBONES, losses.MTM),
    )
    before = [dict(of) for of in known]
    yield
    for of, was in zip(known, before, strict=True):
        of.clear()
        of.update(was)


def test_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exec(example("Add a data set"), {})
    moods = ["calm", "loud", "sad"]
    lines = [f"{1 + i % 9}\t{1 + i // 9}\t{moods[i // 9 % 3]}\t{1 + i % 5}" for i in range(90)]
    (tmp_path / "songs").mkdir()
    plays = tmp_path / "songs" / "plays.tsv"
    plays.write_text("\n".join(lines))
    monkeypatch.setenv("ALTLIB_DATA", str(tmp_path))
    data = sources.load("songs")
    assert list(raw_checksums("songs")) == ["plays.tsv"]
    prepared = prepare(data.frame, data.schema, DataConfig("songs", split="random"))
    assert len(prepared.labels) == 72 and prepared.schema.fields[2].determined_by == ("song",)
    plays.write_text("\n".join([*lines, "1\t99\tcalm\t7"]))
    with pytest.raises(ValueError, match="line 91, column 'rating': found '7'"):
        sources.load("songs")


def test_an_id_based_model() -> None:
    exec(example("Add an ID-based model"), {"__name__": "example"})
    model = ctr.build(CtrConfig(backbone="sumpool", embedding=8), 50, 4)
    vector, logit = model(torch.randint(50, (3, 4)))
    assert vector.shape == (3, model.representation_size) and logit.shape == (3,)


def test_a_loss() -> None:
    exec(example("Add a loss"), {})
    query, table = torch.randn(5, 3, requires_grad=True), torch.randn(8, 3)
    noise = losses.Noise(torch.ones(8), torch.tensor([0, 4, 8]), within_field=True)
    fields = torch.tensor([0, 0, 1, 1, 1])
    given = (query, torch.tensor([1, 2, 5, 6, 7]), fields, table, torch.zeros(8), noise, 4)
    losses.MTM["margin"](*given).backward()
    assert query.grad is not None and query.grad.any()


def test_a_study(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(example("Add a study"))
    found = study_runs(str(tmp_path / "mine.yaml"), "09_ablations")["negatives"]
    assert {s: runs[0].pretraining.alignment.negatives for s, runs in found.items()} == {  # type: ignore[union-attr]
        "25": 25,
        "5": 5,
        "100": 100,
    }
