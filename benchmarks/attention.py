"""Forms of attention over short sentences on a GPU, forward and backward in bf16.

`python -m benchmarks.attention` prints milliseconds for the shapes whose steps
`benchmarks.pretraining` measures; padding behind each sentence is masked where a form can.
"""

import statistics
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

Form = Callable[[Tensor, Tensor, Tensor], Tensor]

SHAPES = {  # sentences (whole and masked), heads, tokens, width of a head
    "MiniLM-L6, batch 1,024": (2048, 12, 48, 32),
    "roberta-base, batch 512": (1024, 12, 48, 64),
    "roberta-large, batch 128": (256, 16, 48, 64),
}


def fused(backend: SDPBackend | None, mask: Tensor | None, dropout: float = 0.0) -> Form:
    """PyTorch's own attention, by one backend or by the one that it chooses."""

    def form(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if backend is None:
            return F.scaled_dot_product_attention(q, k, v, mask, dropout)
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(q, k, v, mask, dropout)

    return form


def written_out(mask: Tensor) -> Form:
    """Attention as its formula, compiled."""

    def form(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5  # B, H, L, L
        return scores.masked_fill(~mask, -torch.inf).softmax(-1) @ v

    return torch.compile(form)


def packed(length: int) -> Form:
    """Flash attention over sentences of their own lengths, one behind the other."""

    def form(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        from torch.nn.attention.varlen import varlen_attn  # newer than some releases

        starts = torch.arange(0, len(q) * length + 1, length, device=q.device, dtype=torch.int32)
        flat = (part.transpose(1, 2).flatten(0, 1) for part in (q, k, v))  # B * L, H, D
        context = varlen_attn(*flat, starts, starts, length, length)
        return context.unflatten(0, (len(q), length)).transpose(1, 2)

    return form


def milliseconds(form: Form, parts: list[Tensor], gradient: Tensor) -> float:
    """Median of ten calls, forward and backward."""
    seen = []
    for turn in range(13):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        form(*(part.transpose(1, 2) for part in parts)).backward(gradient)
        end.record()
        torch.cuda.synchronize()
        if turn > 2:
            seen.append(begin.elapsed_time(end))
    return statistics.median(seen)


def main() -> None:
    for name, (batch, heads, length, width) in SHAPES.items():
        shape = (batch, length, heads, width)
        parts = [torch.randn(shape).to("cuda", torch.bfloat16).requires_grad_() for _ in range(3)]
        gradient = torch.randn_like(parts[0]).transpose(1, 2)
        lengths = torch.randint(length - 6, length + 1, (batch, 1), device="cuda")
        mask = (torch.arange(length, device="cuda") < lengths)[:, None, None]  # B, 1, 1, L
        forms = {
            "chosen by PyTorch": fused(None, mask),
            "memory-efficient": fused(SDPBackend.EFFICIENT_ATTENTION, mask),
            "memory-efficient, dropout": fused(SDPBackend.EFFICIENT_ATTENTION, mask, 0.1),
            "cuDNN": fused(SDPBackend.CUDNN_ATTENTION, mask),
            "flash, nothing padded": fused(SDPBackend.FLASH_ATTENTION, None),
            "flash, packed": packed(length),
            "written out, compiled": written_out(mask),
        }
        for form, attend in forms.items():
            try:
                print(f"{name}, {form}: {milliseconds(attend, parts, gradient):.3f} ms", flush=True)
            except (RuntimeError, ImportError, TypeError) as error:
                print(f"{name}, {form}: {str(error).splitlines()[0][:120]}", flush=True)


if __name__ == "__main__":
    main()
