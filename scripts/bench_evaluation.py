"""Evaluation against PEFT: labels scored, and answers generated, with a long prompt in front.

    python scripts/bench_evaluation.py [--json FILE] [--prompt 400] [--examples 64] [--batch 16]

The prompt stands in front of ragged queries (mean 25 tokens); both sides get the same vectors, examples and batch size.

choice    Two labels per example. With labels of one token PEFT runs each batch of queries once and reads both off the
          last place, as a careful user would. With labels of three tokens it runs each label behind its query, as
          evaluation harnesses do. Its rows come in the data's order and are padded on the right.
generate  Answers of 1 to 119 tokens with their end, 60 on average, prescribed by the model's weights
          (bench/countdown.py), so that both sides decode the same tokens. PEFT calls `generate` on left-padded batches
          in the data's order.

ratio     PEFT's seconds over ours, medians of rounds that alternate
error     the largest difference of two scores; for answers, the share that differs
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from bench.batches import Shape, make_vectors
from bench.countdown import END, answered_with, teach_countdown, without_countdown
from bench.measure import medians
from bench.models import ModelSpec, language_model
from bench.output import machine, parser, ratio, show, spec_of
from bench.steps import IGNORED, make_prompt, peft_model
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.passes.scoring import generate, score_choices
from embedgrad_cli.core.text.marked_tokens import Example

# by their number of tokens
LABELS: dict[int, list[tuple[int, ...]]] = {1: [(11,), (12,)], 3: [(11, 13, 14), (12, 13, 15)]}
COLUMNS = ["kind", "prompt", "query", "examples", "batch", "answer", "ratio", "error", "seconds", "peft_seconds"]
Padded = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Work:
    """Examples behind one prompt, and how many go through the model at once."""

    examples: list[Example]
    vectors: Tensor
    batch_size: int

    @property
    def queries(self) -> list[list[int]]:
        """What PEFT is given: the tokens behind the prompt."""
        return [list(example.tokens[len(self.vectors) :]) for example in self.examples]


def our_scores(network: Any, work: Work, choices: Sequence[tuple[int, ...]]) -> Tensor:
    """`[examples, choices]`"""
    forward, prompt = Forward(language_model(network), work.examples), make_prompt(work.vectors, network.device)
    return torch.tensor(score_choices(forward, work.examples, choices, prompt, work.batch_size))


@torch.no_grad()
def peft_first_token_scores(wrapped: Any, work: Work, choices: Sequence[tuple[int, ...]]) -> Tensor:
    """One forward pass per batch; every label is one token, read off the last place. `[examples, choices]`"""
    scores, firsts = [], [choice[0] for choice in choices]
    for rows in batches(work.queries, work.batch_size):
        ids, mask = pad(rows, wrapped.device)
        last = len(work.vectors) + mask.sum(dim=1) - 1
        logits = wrapped(input_ids=ids, attention_mask=mask).logits[torch.arange(len(rows)), last]
        scores.append(logits.float().log_softmax(-1)[:, firsts])
    return torch.cat(scores).cpu()


@torch.no_grad()
def peft_scores(wrapped: Any, work: Work, choices: Sequence[tuple[int, ...]]) -> Tensor:
    """One row per query and label. `[examples, choices]`"""
    scores = []
    rows = [query + list(choice) for query in work.queries for choice in choices]
    for part in batches(rows, work.batch_size):
        ids, mask = pad(part, wrapped.device)
        logits = wrapped(input_ids=ids, attention_mask=mask).logits[:, len(work.vectors) - 1 : -1].float()
        behind = torch.arange(ids.shape[1], device=ids.device)
        is_label = (behind >= mask.sum(1, keepdim=True) - len(choices[0])) & mask.bool()
        labels = ids.masked_fill(~is_label, IGNORED)
        losses = cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
        scores.append(-losses.sum(dim=1))
    return torch.cat(scores).view(-1, len(choices)).cpu()


def peft_answers(wrapped: Any, work: Work, longest: int) -> list[list[int]]:
    """What `generate` gives, without the end."""
    answers = []
    for rows in batches(work.queries, work.batch_size):
        ids, mask = pad(rows, wrapped.device, left=True)
        wanted = {"max_new_tokens": longest, "do_sample": False, "eos_token_id": END, "pad_token_id": END}
        output = wrapped.generate(input_ids=ids, attention_mask=mask, **wanted)
        answers += [row[: row.index(END)] for row in output[:, ids.shape[1] :].tolist()]
    return answers


def batches(rows: Sequence[list[int]], size: int) -> list[Sequence[list[int]]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def pad(rows: Sequence[list[int]], device: torch.device, left: bool = False) -> Padded:
    """Ids and mask, both `[batch, width]`."""
    width = max(map(len, rows))
    filling = [[0] * (width - len(row)) for row in rows]
    ids = [gap + row if left else row + gap for row, gap in zip(rows, filling, strict=True)]
    mask = [gap + [1] * len(row) if left else [1] * len(row) + gap for row, gap in zip(rows, filling, strict=True)]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def bench_choice(network: Any, work: Work, label_tokens: int, repeats: int) -> dict[str, Any]:
    choices, wrapped = LABELS[label_tokens], peft_model(network, work.vectors)
    scoring = peft_first_token_scores if label_tokens == 1 else peft_scores
    ours = lambda: our_scores(network, work, choices)  # noqa: E731
    peft = lambda: scoring(wrapped, work, choices)  # noqa: E731
    error = (ours() - peft()).abs().max().item()
    return {"kind": "choice", "answer": f"{label_tokens} token(s)", "error": error, **times(ours, peft, repeats)}


def bench_generation(network: Any, work: Work, longest: int, repeats: int) -> dict[str, Any]:
    """Changes the network: see `teach_countdown`."""
    model = teach_countdown(network, longest)
    generator = torch.Generator().manual_seed(2)
    lengths = torch.randint(1, longest, (len(work.examples),), generator=generator).tolist()
    examples = [without_countdown(example, longest) for example in work.examples]
    examples = [answered_with(example, length) for example, length in zip(examples, lengths, strict=True)]
    work = Work(examples, work.vectors, work.batch_size)
    prompt, wrapped = make_prompt(work.vectors, network.device), peft_model(network, work.vectors)
    ours = lambda: generate(Forward(model, examples), examples, prompt, longest, work.batch_size)  # noqa: E731
    peft = lambda: peft_answers(wrapped, work, longest)  # noqa: E731
    pairs = [(a, b) for (a,), b in zip(ours(), peft(), strict=True)]
    error = sum(a != b for a, b in pairs) / len(pairs)
    mean = sum(lengths) / len(lengths)
    return {"kind": "generate", "answer": f"mean {mean:.0f} tokens", "error": error, **times(ours, peft, repeats)}


def times(ours: Callable[[], Any], peft: Callable[[], Any], repeats: int) -> dict[str, Any]:
    seconds, peft_seconds = medians([ours, peft], repeats)
    return {"ratio": ratio(peft_seconds, seconds), "seconds": seconds, "peft_seconds": peft_seconds}


def bench(spec: ModelSpec, shape: Shape, batch_size: int, longest: int, repeats: int) -> list[dict[str, Any]]:
    network = spec.make()
    vectors = make_vectors(shape.prompt, network.config.hidden_size)
    work = Work(shape.examples(network.config.vocab_size), vectors, batch_size)
    rows = [bench_choice(network, work, label_tokens, repeats) for label_tokens in LABELS]
    rows.append(bench_generation(network, work, longest, repeats))
    common = {"prompt": shape.prompt, "query": shape.query, "examples": shape.batch, "batch": batch_size}
    return [{**row, **common, "machine": machine(spec)} for row in rows]


def main(arguments: Sequence[str] | None = None) -> None:
    arguments_of = parser(__doc__)
    arguments_of.add_argument("--prompt", type=int, default=400, help="tokens of the prompt (default 400)")
    arguments_of.add_argument("--examples", type=int, default=64)
    arguments_of.add_argument("--batch", type=int, default=16, help="examples at once (default 16)")
    arguments_of.add_argument("--longest", type=int, default=120, help="tokens of an answer at most (default 120)")
    options = arguments_of.parse_args(arguments)
    spec = spec_of(options)
    shape = Shape(options.prompt, 25, 1, options.examples)
    rows = bench(spec, shape, options.batch, options.longest, options.repeats)
    show(f"evaluation against PEFT: {machine(spec)}", rows, COLUMNS, options.json)


if __name__ == "__main__":
    main()
