"""What each part of the forward gives: one optimiser step without it, over the step with all of them.

    python scripts/bench_parts.py [--json FILE] [--shapes P,Q,T,B[,after] …]

no trunk           no shared prefix: every example is computed in full, with all logits, in one padded batch
trunk per row      attention reads a copy of the trunk per row; rows are padded, in micro-batches of similar length
one padded batch   as before, and the batch is not split
all logits         the logits of all targets at once, and their gradient by autograd
some logits        as elsewhere than on a CPU: the logits of some rows at a time
PyTorch's loss     torch.nn.functional.linear_cross_entropy, where it exists, instead of
                   core/kernels/frozen_head_loss.py
whole last layer   its MLP runs at every position
queries each time  queries before a slot are computed in every step (where the prompt stands behind them)

Each figure is a ratio of medians of rounds in which all variants take turns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional

from bench.batches import Shape, make_vectors
from bench.measure import medians
from bench.models import ModelSpec, language_model
from bench.output import machine, parser, ratio, show, spec_of
from bench.steps import Step, make_prompt
from bench_step import QUERY_BUDGET, SHAPES, largest_error
from embedgrad_cli.core.kernels import frozen_head_loss as losses
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.passes import forward as product
from embedgrad_cli.core.passes import network_pass
from embedgrad_cli.core.passes.query_cache import QueryCache

FUSED = "PyTorch's loss"
LOSSES = ["all logits", "some logits", FUSED]
PARTS = ["no trunk", "trunk per row", "one padded batch", *LOSSES, "whole last layer", "queries each time"]
COLUMNS = ["prompt", "query", "target", "batch", "placement", *PARTS, "grad_error", "seconds"]


@contextmanager
def without(part: str, model: LanguageModel) -> Iterator[None]:
    """Answer the model's questions about itself with no, or replace a function, so that a part is left out."""
    with ExitStack() as left_out:
        if part in ("trunk per row", "one padded batch"):
            left_out.enter_context(patch.object(model, "reads_trunk_in_place", False))
        if part == "one padded batch":
            whole = lambda lengths, *_, **__: [list(range(len(lengths)))]  # noqa: E731
            left_out.enter_context(patch.object(product, "split_by_length", whole))
        if part == "all logits":
            left_out.enter_context(patch.dict(vars(model), has_plain_head=False))
        if part == "some logits":
            left_out.enter_context(patch.object(losses, "_suits_attention", lambda *_: False))
        if part == FUSED:
            left_out.enter_context(patch.object(network_pass, "frozen_head_losses", fused_losses))
        if part == "whole last layer":
            left_out.enter_context(patch.object(network_pass, "mlp_only_at", lambda *_: nullcontext()))
        yield


def fused_losses(hidden: Tensor, layer: torch.nn.Linear, targets: Tensor, temperature: float) -> Tensor:
    """Where the temperature is 1."""
    return functional.linear_cross_entropy(hidden, layer.weight, targets, linear_bias=layer.bias, reduction="none")


def step_without(part: str, model: LanguageModel, shape: Shape) -> Step:
    """A step that returns the gradient."""
    examples = shape.examples(model.network.config.vocab_size)
    prompt = make_prompt(make_vectors(shape.prompt, model.hidden_size), model.device)
    queries = None if part == "queries each time" else QueryCache(QUERY_BUDGET)
    forward = product.Forward(model, examples, part != "no trunk", queries)

    def step() -> Tensor:
        prompt.vectors.grad = None
        with without(part, model):
            forward.accumulate_gradient(examples, prompt)
        return torch.as_tensor(prompt.vectors.grad).clone()

    return step


def compare(spec: ModelSpec, network: Any, shape: Shape, repeats: int) -> dict[str, Any]:
    model = language_model(network)
    _ = model.has_plain_head  # asked before anything is left out
    left_out = [] if hasattr(functional, "linear_cross_entropy") else [FUSED]
    left_out += [] if shape.placement == "after" else ["queries each time"]
    parts = [part for part in PARTS if part not in left_out]
    steps = [step_without(part, model, shape) for part in ["", *parts]]
    gradients = [step() for step in steps]
    whole, *seconds = medians(steps, repeats)
    ratios = dict.fromkeys(PARTS) | {part: ratio(s, whole) for part, s in zip(parts, seconds, strict=True)}
    error = largest_error(gradients[1:], gradients[0])
    return {**vars(shape), **ratios, "grad_error": error, "seconds": whole, "machine": machine(spec)}


def main(arguments: Sequence[str] | None = None) -> None:
    arguments_of = parser(__doc__)
    arguments_of.add_argument("--shapes", nargs="+", type=Shape.parse, default=SHAPES, metavar="P,Q,T,B[,after]")
    options = arguments_of.parse_args(arguments)
    spec = spec_of(options)
    network = spec.make()
    rows = [compare(spec, network, shape, options.repeats) for shape in options.shapes]
    show(f"one step without a part, over the whole step: {machine(spec)}", rows, COLUMNS, options.json)


if __name__ == "__main__":
    main()
