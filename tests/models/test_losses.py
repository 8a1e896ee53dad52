"""Each loss against a slow reference; sampling against the exact gradient; gathering."""

import math
from socket import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from altlib.models import losses
from altlib.models.losses import Noise

STARTS = torch.tensor([0, 5, 12])  # two fields of 5 and 7 features, their first two reserved
COUNTS = torch.tensor([0, 0, 4, 1, 3, 0, 0, 2, 6, 1, 1, 8])


def instance(masked: int = 6, size: int = 4) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """query, targets, fields, table and bias of a small problem."""
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(masked, size, generator=generator)
    fields = torch.arange(masked) % 2
    targets = torch.where(fields == 0, 2, 7) + torch.arange(masked) % 3
    table = torch.randn(12, size, generator=generator)
    bias = torch.randn(12, generator=generator)
    return query, targets, fields, table, bias


def test_icl_equals_a_loop_over_rows() -> None:
    text, ids = torch.randn(5, 3), torch.randn(5, 3)
    expected = 0.0
    for i in range(5):
        to_ids = [math.exp(2.0 * float(text[i] @ ids[j])) for j in range(5)]
        to_text = [math.exp(2.0 * float(ids[i] @ text[j])) for j in range(5)]
        expected -= math.log(to_ids[i] / sum(to_ids)) + math.log(to_text[i] / sum(to_text))
    assert losses.icl(text, ids, 2.0).item() == pytest.approx(expected / 10, rel=1e-5)


def test_mlm_is_the_mean_over_masked_tokens_only() -> None:
    logits, targets = torch.randn(4, 9), torch.tensor([1, -100, 5, 0])
    chosen = [-(logits[i].log_softmax(0)[targets[i]]) for i in (0, 2, 3)]
    assert torch.allclose(losses.mlm(logits, targets), torch.stack(chosen).mean())


@pytest.mark.parametrize("name", sorted(losses.MTM))
def test_no_masked_item_gives_zero_and_a_zero_gradient(name: str) -> None:
    table = torch.randn(12, 4)
    query = torch.zeros(0, 4, requires_grad=True)
    noise = Noise(COUNTS, STARTS, True)
    none = torch.zeros(0, dtype=torch.long)
    loss = losses.MTM[name](query, none, none, table, torch.zeros(12), noise, 3)
    loss.backward()
    assert loss.item() == 0.0
    logits = torch.zeros(0, 9, requires_grad=True)
    assert losses.mlm(logits, none).item() == 0.0


@pytest.mark.parametrize("within_field", [True, False])
def test_noise_follows_the_unigram_distribution(within_field: bool) -> None:
    torch.manual_seed(0)
    noise = Noise(COUNTS, STARTS, within_field)
    drawn = noise.draw(torch.tensor([1]), 200_000)[0]
    allowed = COUNTS.clone().double()
    if within_field:
        allowed[: STARTS[1]] = 0
    expected = (allowed / allowed.sum()).float()
    assert torch.allclose(drawn.bincount(minlength=12) / 200_000, expected, atol=0.005)
    counted = expected.nonzero().T
    log = noise.log_probability(counted, torch.tensor([1]))
    assert torch.allclose(log.exp(), expected[counted], atol=1e-6)


@pytest.mark.parametrize("within_field", [True, False])
def test_nce_equals_a_loop(within_field: bool) -> None:
    query, targets, fields, table, bias = instance()
    noise = Noise(COUNTS, STARTS, within_field)
    torch.manual_seed(1)
    loss = losses.nce(query, targets, fields, table, bias, noise, 4)
    torch.manual_seed(1)
    drawn = noise.draw(fields, 4)
    expected = 0.0
    for m in range(len(query)):
        first, last = (
            (int(STARTS[fields[m]]), int(STARTS[fields[m] + 1])) if within_field else (0, 12)
        )
        total = float(COUNTS[first:last].sum())
        for k, feature in enumerate([int(targets[m]), *drawn[m].tolist()]):
            score = float(query[m] @ table[feature] + bias[feature]) - math.log(12)
            odds = score - math.log(4 * float(COUNTS[feature]) / total)
            expected += math.log1p(math.exp(-odds if k == 0 else odds))
    assert loss.item() == pytest.approx(expected / len(query), rel=1e-5)


def test_full_softmax_equals_a_loop_within_the_field() -> None:
    query, targets, fields, table, bias = instance()
    noise = Noise(COUNTS, STARTS, True)
    expected = 0.0
    for m in range(len(query)):
        first, last = int(STARTS[fields[m]]), int(STARTS[fields[m] + 1])
        scores = {
            v: math.exp(float(query[m] @ table[v] + bias[v]))
            for v in range(first, last)
            if COUNTS[v] > 0
        }
        expected -= math.log(scores[int(targets[m])] / sum(scores.values()))
    found = losses.full_softmax(query, targets, fields, table, bias, noise, 0)
    assert found.item() == pytest.approx(expected / len(query), rel=1e-5)


def gradient(name: str, negatives: int) -> Tensor:
    """Gradient of a loss with respect to the query, its scores normalised to probabilities."""
    query, targets, fields, table, bias = instance()
    noise = Noise(COUNTS, STARTS, True)
    if name == "nce":
        # NCE tends to the likelihood's gradient where the model is normalised: shift each query's
        # scores by its own log partition, which a constant input does.
        scores = query @ table.T + bias
        inside = (torch.arange(12) >= noise.low[fields, None]) & (
            torch.arange(12) < noise.high[fields, None]
        )
        inside &= COUNTS > 0
        partition = scores.masked_fill(~inside, -torch.inf).logsumexp(1) - math.log(12)
        query = torch.cat([query, -partition[:, None]], 1)
        table = torch.cat([table, torch.ones(12, 1)], 1)
    query.requires_grad_()
    torch.manual_seed(3)
    losses.MTM[name](query, targets, fields, table, bias, noise, negatives).backward()
    assert query.grad is not None
    return query.grad[:, :4]


def test_nce_tends_to_the_exact_gradient() -> None:
    exact = gradient("full", 0)
    found = [gradient("nce", negatives) for negatives in (10, 1000, 100_000)]
    errors = [float((of - exact).norm() / exact.norm()) for of in found]
    assert errors[2] < errors[1] < errors[0]
    assert errors[2] < 0.01


def gather_worker(rank: int, port: int, text: Tensor, ids: Tensor, queue: mp.Queue) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    mine = slice(rank * 3, rank * 3 + 3)
    a, b = text[mine].clone().requires_grad_(), ids[mine].clone().requires_grad_()
    loss = losses.icl(a, b, 1.5)
    loss.backward()
    queue.put((rank, loss.item(), a.grad.tolist(), b.grad.tolist()))
    dist.destroy_process_group()


def test_icl_over_two_processes_equals_one() -> None:
    generator = torch.Generator().manual_seed(5)
    text, ids = torch.randn(6, 3, generator=generator), torch.randn(6, 3, generator=generator)
    whole_text, whole_ids = text.clone().requires_grad_(), ids.clone().requires_grad_()
    whole = losses.icl(whole_text, whole_ids, 1.5)
    whole.backward()
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = mp.get_context("spawn")
    queue = context.Queue()
    workers = [
        context.Process(target=gather_worker, args=(r, port, text, ids, queue)) for r in range(2)
    ]
    for worker in workers:
        worker.start()
    results = sorted(queue.get(timeout=600) for _ in workers)
    for worker in workers:
        worker.join()
    # Each process averages over its half, and data parallelism averages the processes.
    assert sum(r[1] for r in results) / 2 == pytest.approx(whole.item(), rel=1e-5)
    for position, expected in ((2, whole_text.grad), (3, whole_ids.grad)):
        found = torch.tensor([row for r in results for row in r[position]]) / 2
        assert torch.allclose(found, expected, atol=1e-6)
