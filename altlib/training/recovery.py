"""Recovery of masked words and IDs."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from altlib.data.tabular import Prepared
from altlib.data.text import TextBatch
from altlib.models.alignment import Alignment, Masks, Views
from altlib.training.batches import Batches
from altlib.training.processes import seed_step


@torch.no_grad()
def evaluate_alignment(
    model: nn.Module, batches: Batches, run: Accelerator, seed: int
) -> dict[str, Any]:
    """Losses and recovery of the masked words and IDs, with the same masks at every call.

    Returns:
        "loss": mean of each loss; "recovery": for each kind of `recovery` and each field
        the number of masked items, the share that comes back and their mean loss in nats,
        {name: [number, share, loss]}.
    """
    inner = run.unwrap_model(model).eval()
    names = batches.data.schema.field_names
    totals: dict[str, float] = {}
    sums: dict[str, np.ndarray] = {}
    # Every process takes all rows, so that each knows the same result.
    for step, rows in enumerate(batches.ordered()):
        seed_step(seed, step)
        ids, text, _, masks = batches.load(rows, run.device)
        assert text is not None and masks is not None
        with run.autocast():
            for name, loss in inner(ids, text, masks).items():
                totals[name] = totals.get(name, 0.0) + float(loss) * len(rows) / len(batches.rows)
            for name, (field, *measures) in recovery(inner, batches.data, ids, text, masks).items():
                total = sums.setdefault(name, np.zeros((3, len(names))))
                of = field.cpu().numpy()
                for line, measure in zip(total, [torch.ones_like(field), *measures], strict=True):
                    np.add.at(line, of, measure.double().cpu().numpy())
    shares = {
        kind: {
            name: [int(number), right / number, loss / number]
            for name, number, right, loss in zip(names, *total.tolist(), strict=True)
            if number
        }
        for kind, total in sums.items()
    }
    return {"loss": totals, "recovery": shares}


@torch.no_grad()
def recovery(
    model: Alignment, data: Prepared, ids: Tensor, text: TextBatch, masks: Masks
) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """How much of what is masked comes back; arguments as for `Alignment.forward`.

    Returns:
        For each kind the field of each masked item [M], whether the truth scores highest [M],
        and its negative log-probability in nats [M]: "mtm", masked IDs within their fields;
        "most frequent", the same by the frequencies of training alone; "mlm", masked tokens;
        "mlm, other IDs", the same beside the IDs of another row: as good as "mlm" where words
        come back from words alone.
    """
    result = {}
    views = Views(model, ids, text, masks)
    if model.config.mtm:
        query, _ = model.attend(views.masked_vector, text, views.states)
        row, field = masks.fields.nonzero(as_tuple=True)
        truth = ids[row, field]
        scores = query[row, field] @ model.features.weight.T + model.feature_bias
        hits = torch.zeros_like(row, dtype=torch.bool)
        surprise = torch.zeros_like(row, dtype=torch.float)
        for f in field.unique().tolist():
            of = field == f
            first, last = int(model.unknown_ids[f]) + 1, int(data.vocabulary.starts[f + 1])
            hits[of], surprise[of] = judged(scores[of, first:last], truth[of] - first)
        result["mtm"] = field, hits, surprise
        favourites, rarity = (part.to(ids.device) for part in frequencies(data))
        result["most frequent"] = field, truth == favourites[field], rarity[truth]
    if model.config.mlm:
        positions = masks.token_positions
        of = text.field.flatten()[positions]
        truth = model.place[text.tokens.flatten()[positions]]
        # Half a batch away, since neighbours may be rows of one user.
        other = views.companion.roll(max(1, len(ids) // 2), 0)
        companions = {"mlm": views.companion, "mlm, other IDs": other}
        for name, companion in companions.items():
            logits = model.mlm_logits(views.masked_states, positions, companion)
            result[name] = of, *judged(logits, truth)
    return result


def judged(scores: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Whether `truth` [M] scores highest [M], and its negative log-probability [M], from scores
    [M, K]."""
    return scores.argmax(-1) == truth, F.cross_entropy(scores.float(), truth, reduction="none")


def frequencies(data: Prepared) -> tuple[Tensor, Tensor]:
    """Each field's most frequent feature [F], and the negative log-share of every feature among the
    training rows of its field, in nats; infinite for reserved ids, which are never the truth."""
    starts = data.vocabulary.starts
    parts = np.split(np.array(data.counts), starts[1:-1])
    favourites = starts[:-1] + [int(part.argmax()) for part in parts]
    with np.errstate(divide="ignore"):
        rarity = np.concatenate([-np.log(part / part.sum()) for part in parts])
    return torch.from_numpy(favourites), torch.from_numpy(rarity).float()
