"""Whether another engine's greedy answers are the network's own, but for ties in rounding."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.passes.scoring import likeliest_tokens
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.marked_tokens import Example

log = logging.getLogger(__name__)

CHECKED = 8  # answers: one pass over them, however long generating took
# Logits this close may change places, because engines add numbers up in different orders: some steps of what the
# precision can tell apart at the size of logits.
TIES = {"float32": 1e-3, "float16": 0.05, "bfloat16": 0.5}


@dataclass(frozen=True)
class Gap:
    """Where an engine's token is farthest behind the likeliest one: by how much, in log-likelihood, and in which row.

    `num_tokens` were looked at. A gap of 0 in all of them is what greedy decoding here would have answered.
    """

    size: float
    row: str
    num_tokens: int


def widest_gap(
    forward: Forward, prompt: SoftPrompt, examples: Sequence[Example], answers: Sequence[Sequence[int]]
) -> Gap | None:
    """Read greedy answers with the network here, each token after those before it.

    Args: answers: the token ids of one to each example, with the token that ended it.

    Returns: None where all answers are empty.
    """
    pairs = zip(examples, answers, strict=True)
    answered = [replace(example, target=tuple(ids)) for example, ids in pairs if ids]
    if not answered:
        return None
    always = [[(token,) for token in example.target] for example in answered]
    found = likeliest_tokens(forward, answered, prompt, 2, always, CHECKED)
    widest = Gap(-1.0, "", sum(len(example.target) for example in answered))
    for example, (ids, likelihoods) in zip(answered, found, strict=True):
        chosen = ids.eq(ids.new_tensor(example.target)[:, None])
        size = float((likelihoods[:, 0] - likelihoods[chosen]).max())
        if size > widest.size:
            widest = replace(widest, size=size, row=example.id)
    return widest


def check_greedy(
    engine: str, forward: Forward, prompt: SoftPrompt, examples: Sequence[Example], answers: Sequence[Sequence[int]]
) -> None:
    """Compare a handful of an engine's greedy answers with the network here: log what is found, warn of no tie."""
    some = range(0, len(examples), -(-len(examples) // CHECKED))
    gap = widest_gap(forward, prompt, [examples[i] for i in some], [answers[i] for i in some])
    if gap is None:
        return
    tie = TIES[forward.model.dtype_name]
    if gap.size <= tie:
        log.info(
            "engine=%s: the %d tokens of %d answers are the likeliest ones here too, to %.1e in log-likelihood",
            *(engine, gap.num_tokens, len(some), gap.size),
        )
    else:
        log.warning(
            "engine=%s: of %d answers that were looked at, the one to the row %s has a token that is less likely here "
            "than the likeliest by %.3g in log-likelihood, which is more than a tie in rounding (%g): the engine "
            "computes something else than training does. Its figures are not those of embedgrad's own decoding",
            *(engine, len(some), gap.row, gap.size, tie),
        )
