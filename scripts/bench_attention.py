"""What reading the trunk in place saves of one optimiser step over a copy of it for each row, counted.

    python scripts/bench_attention.py --config CONFIG.json [--json FILE] [--device cuda] [--shapes P,Q,T,B[,after] …]

Nothing is computed: the step's own code runs on the meta device as it would on this one, which need not be here, and
every operator is counted. So there are no seconds, and no figure depends on the machine.

copied        megabytes that operators write which only put numbers elsewhere: cat, clone, padding and so on, not casts
attention     billions of multiplications of queries with keys and of weights with values; packed rows count as padded
products      billions of multiplications in all other matrix products
peak          megabytes held at most beside the weights, activations and gradients among them
passes        forward passes of a step
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bench.batches import Shape, make_vectors
from bench.models import ModelSpec
from bench.output import parser, ratio, show, spec_of
from bench.steps import make_prompt
from bench_step import QUERY_BUDGET, SHAPES
from embedgrad_cli.core.kernels.live_memory import LiveMemory
from embedgrad_cli.core.kernels.shared_prefix_attention import assume_prepared
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.passes.query_cache import QueryCache

aten = torch.ops.aten
COPIES = {
    *(aten.cat, aten.clone, aten.copy_, aten.index_select, aten.index_copy, aten.index_add),
    *(aten.gather, aten.constant_pad_nd, aten.repeat, aten.slice_backward),
}
FORWARD = {
    aten._scaled_dot_product_flash_attention_for_cpu,
    aten._scaled_dot_product_efficient_attention,
    aten._scaled_dot_product_flash_attention,
    aten._flash_attention_forward,
}
BACKWARD = {
    aten._scaled_dot_product_flash_attention_for_cpu_backward,
    aten._scaled_dot_product_efficient_attention_backward,
    aten._scaled_dot_product_flash_attention_backward,
    aten._flash_attention_backward,
}
FIGURES = ["copied", "attention", "products", "peak", "passes"]
COLUMNS = ["prompt", "query", "target", "batch", "placement", "way", *FIGURES]
IN_PLACE, BY_COPIES = "in place", "copies"


class Counts(TorchDispatchMode):
    """Within it, what operators copy, in bytes, and multiply."""

    def __init__(self) -> None:
        super().__init__()
        self.found = Counter[str]()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        output, packet = function(*args, **(kwargs or {})), function.overloadpacket
        if packet in COPIES:
            self.found["copied"] += output.numel() * output.element_size()
        elif packet in FORWARD:
            self.found["attention"] += 2 * _products(args[0], args[1], args[3:7])
        elif packet in BACKWARD:  # the scores again, and two gradients of each product
            self.found["attention"] += 5 * _products(args[1], args[2], args[6:10])
        elif packet in (aten.mm, aten.addmm, aten.bmm, aten.baddbmm):
            self.found["products"] += output.numel() * args[-1 if packet in (aten.mm, aten.bmm) else -2].shape[-2]
        return output


def _products(query: Tensor, key: Tensor, packed: Sequence[Any]) -> int:
    """Multiplications of queries with keys; of packed rows as many as if they were padded, which is too many.

    Args: packed: where rows begin, and how long they are at most.
    """
    if query.dim() == 4:
        return math.prod(query.shape) * key.shape[2]
    offsets, _, width, key_width = packed
    return (len(offsets) - 1) * width * key_width * math.prod(query.shape[1:])


def count(model: LanguageModel, shape: Shape, device_type: str) -> dict[str, float]:
    """The figures of a step; where the prompt stands behind the queries, of one in which they are kept already."""
    examples = shape.examples(model.network.config.vocab_size)
    prompt = make_prompt(make_vectors(shape.prompt, model.hidden_size)).to("meta")
    forward = Forward(model, examples, queries=QueryCache(QUERY_BUDGET))
    lengths = [example.length - len(forward.trunk) for example in examples]
    with LiveMemory(model.network, device_type):
        forward.accumulate_gradient(examples, prompt)
    with LiveMemory(model.network, device_type) as live, Counts() as counts:
        forward.accumulate_gradient(examples, prompt)
    found = counts.found
    return {
        "copied": found["copied"] / 1e6,
        "attention": found["attention"] / 1e9,
        "products": found["products"] / 1e9,
        "peak": live.peak / 1e6,
        "passes": len(forward.micro_batches(lengths, None)),
    }


def compare(spec: ModelSpec, shape: Shape) -> list[dict[str, Any]]:
    """A row for each way, and one of the quotients of copies over in place."""
    network = replace(spec, device="meta").make()
    if not assume_prepared(network, spec.device):
        raise SystemExit(f"attention of {spec.name} does not read a trunk in place on {spec.device}")
    model = LanguageModel(network, None, "bench", None, False, reads_trunk_in_place=True)
    with LiveMemory(network, spec.device):
        _ = model.has_plain_head
    ways = {IN_PLACE: count(model, shape, spec.device)}
    model.reads_trunk_in_place = False
    ways[BY_COPIES] = count(model, shape, spec.device)
    ways["quotient"] = {name: ratio(ways[BY_COPIES][name], ways[IN_PLACE][name]) for name in FIGURES}  # type: ignore[misc]
    return [{**vars(shape), "way": way, **figures} for way, figures in ways.items()]


def main(arguments: Sequence[str] | None = None) -> None:
    arguments_of = parser(__doc__)
    arguments_of.add_argument("--shapes", nargs="+", type=Shape.parse, default=SHAPES, metavar="P,Q,T,B[,after]")
    options = arguments_of.parse_args(arguments)
    spec = spec_of(options)
    rows = [row for shape in options.shapes for row in compare(spec, shape)]
    show(f"one step, counted as on {spec.device}: {spec.name}, {spec.dtype}", rows, COLUMNS, options.json)


if __name__ == "__main__":
    main()
