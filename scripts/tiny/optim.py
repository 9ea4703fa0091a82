"""How the embedded model learns: the start of its embeddings, and its optimisers."""

from __future__ import annotations

import random

import torch
from torch.nn import functional
from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM


def warm_up_words(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, sentences: list[tuple[str, str]], seed: int
) -> None:
    """Start the embeddings from a bag-of-words classifier of the sentences, which takes seconds.

    Which words are kind and which are not is most of what there is to learn about sentiment from so little
    text, and learning it through the whole model takes far longer.
    """
    rng = random.Random(f"words {seed}")
    table = model.model.embed_tokens.weight
    head = torch.nn.Linear(table.shape[1], 1)
    opt = torch.optim.AdamW([table, *head.parameters()], lr=5e-4, weight_decay=0.0)
    rows = tokenizer([sentence for sentence, _ in sentences], add_special_tokens=False)["input_ids"]
    kind = [float(label == "positive") for _, label in sentences]
    order = list(range(len(rows))) * 3
    rng.shuffle(order)
    for i in range(0, len(order), 256):
        chosen = order[i : i + 256]
        starts = torch.tensor([0, *(len(rows[c]) for c in chosen[:-1])]).cumsum(0)
        bags = functional.embedding_bag(torch.tensor([t for c in chosen for t in rows[c]]), table, starts)
        loss = functional.binary_cross_entropy_with_logits(head(bags)[:, 0], torch.tensor([kind[c] for c in chosen]))
        opt.zero_grad()
        loss.backward()
        opt.step()
    print(f"words: loss {loss.item():.3f}, table {table.pow(2).mean().sqrt().item():.3f}", flush=True)


class Muon(torch.optim.Optimizer):
    """Momentum, made orthogonal by Newton-Schulz iterations: about half of AdamW's steps for the matrices.

    `torch.optim.Muon` computes in bfloat16, which a CPU without bfloat16 instructions does 20 times slower;
    here matrices of one shape are stacked and computed in float32. (Keller Jordan, 2024; the scale is
    Moonshot's, by which AdamW's learning rate fits.)
    """

    def __init__(self, params: list[torch.nn.Parameter], lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        group = self.param_groups[0]
        shapes: dict[tuple[int, ...], list[torch.nn.Parameter]] = {}
        for p in group["params"]:
            shapes.setdefault(tuple(p.shape), []).append(p)
        for shape, params in shapes.items():
            for p in params:
                momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                momentum.lerp_(_gradient(p), 0.05)
            update = torch.stack([_gradient(p).lerp(self.state[p]["momentum"], 0.95) for p in params])
            update = self._orthogonal(update) * (0.2 * max(shape) ** 0.5)
            for p, u in zip(params, update, strict=True):
                p.mul_(1 - 0.05 * group["lr"]).sub_(group["lr"] * u)

    @staticmethod
    def _orthogonal(x: torch.Tensor) -> torch.Tensor:
        """x (N, rows, columns) with all singular values brought near 1."""
        tall = x.shape[1] > x.shape[2]
        x = x.mT if tall else x
        x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
        for _ in range(5):
            gram = x @ x.mT
            x = 3.4445 * x + (-4.775 * gram + 2.0315 * gram @ gram) @ x
        return x.mT if tall else x


def _gradient(p: torch.nn.Parameter) -> torch.Tensor:
    assert p.grad is not None
    return p.grad


def optimizers(model: Qwen2ForCausalLM, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices, AdamW for embeddings, norms and biases."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [Muon(matrices, lr), torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.98), weight_decay=0.0)]
