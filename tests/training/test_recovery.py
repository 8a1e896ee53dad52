"""Recovery of masked words and IDs."""

import numpy as np
import pytest
import torch

from altlib.config import AlignmentConfig, CtrConfig, TextConfig
from altlib.data.frame import Dataset
from altlib.data.tabular import Prepared, prepare
from altlib.data.text import TextBatch, TokenTable
from altlib.models import ctr, plm
from altlib.models.alignment import Alignment
from altlib.training.recovery import recovery

Case = tuple[Prepared, Alignment, torch.Tensor, TextBatch]


@pytest.fixture
def case(synthetic: Dataset, tiny_plm: str) -> Case:
    """A data set, a model, and a batch."""
    data = prepare(synthetic.frame, synthetic.schema)
    language = plm.load(tiny_plm, dropout=0.0)
    table = TokenTable.build(data.values, data.schema, language.tokenizer, TextConfig())
    rows = data.of("train")[:64]
    id_model = ctr.build(CtrConfig(embedding=8, hidden=(16,)), data.features, 6)
    model = Alignment(id_model, language, data, AlignmentConfig(), table.tokens.unique().long())
    return data, model.eval(), torch.from_numpy(data.ids(rows)), table.assemble(data.rows[rows])


def test_recovery_counts_hits_of_a_model_that_knows(case: Case) -> None:
    data, model, ids, text = case
    # With a bias towards one feature a field, exactly the rows that have it are hits.
    favourite = ids[0]
    model.feature_bias.data.zero_()
    model.feature_bias.data[favourite] = 1e4
    torch.manual_seed(3)
    found = recovery(model, data, ids, text, model.draw_masks(ids, text))
    field, hit, surprise = found["mtm"]
    torch.manual_seed(3)
    row, _ = model.draw_masks(ids, text).fields.nonzero(as_tuple=True)
    assert torch.equal(hit, ids[row, field] == favourite[field])
    counts = np.split(np.array(data.counts), data.vocabulary.starts[1:-1])
    usual = torch.tensor([c.argmax() for c in counts]) + model.mask_ids
    assert torch.equal(found["most frequent"][1], ids[row, field] == usual[field])
    assert torch.allclose(surprise[hit], torch.zeros(1)) and (surprise[~hit] > 1000).all()
    shares = torch.cat([torch.tensor(c / c.sum()) for c in counts])
    assert torch.allclose(found["most frequent"][2].exp(), 1 / shares[ids[row, field]].float())


def test_words_come_back_with_other_ids_as_with_their_own_where_ids_say_nothing(case: Case) -> None:
    data, model, ids, text = case
    # The ID vector's way into the head starts at zero.
    found = recovery(model, data, ids, text, model.draw_masks(ids, text))
    assert all(map(torch.equal, found["mlm"], found["mlm, other IDs"]))
    torch.nn.init.normal_(model.mlm_head.inward.weight)
    found = recovery(model, data, ids, text, model.draw_masks(ids, text))
    assert not torch.equal(found["mlm"][2], found["mlm, other IDs"][2])
