"""How many operations a step or answers need at least: tokens x weights touched, each once, and attention.

Weights are frozen, so the backward pass costs as much as the forward one (gradients for inputs alone), not twice as
much. The plain path computes every position of the padded batch, prompt included, forward and backward, and projects
all of them to the vocabulary. What must be done is less: no padding, the shared prefix (trunk) once and of each
example its suffix (branch), no backward pass before the first slot, no pass at all for what was kept, and the
vocabulary and the last layer's MLP at target positions alone. (Its queries could be left out at the others too; that
is not counted as left out.) Answers need a forward pass alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from embedgrad_cli.core.kernels.activation_checkpointing import decoder_layers
from embedgrad_cli.core.text.marked_tokens import Example, first_slot, trunk_length


@dataclass(frozen=True)
class Run:
    """Consecutive tokens of one sequence, computed together.

    Args:
        tokens: how many.
        frozen, live: places before them that they attend to, without and with gradient.
        has_graph: whether a backward pass follows.
    """

    tokens: int
    frozen: int = 0
    live: int = 0
    has_graph: bool = True


@dataclass(frozen=True)
class Costs:
    """What one token touches: `weights` in all layers, of which `last_mlp` in the last one's MLP; `head` in the output
    layer; `attention` per place it sees."""

    weights: int
    head: int
    attention: int
    last_mlp: int = 0

    @classmethod
    def of(cls, network: Any) -> Costs:
        """Of a causal language model of `transformers`, whose parameters may stand on the meta device."""
        config, layers = network.config.get_text_config(), decoder_layers(network)
        weights = sum(_weights(layer, config) for layer in layers)
        head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        attention = len(layers) * config.num_attention_heads * head_size
        head = network.get_output_embeddings().weight.numel()
        return cls(weights, head, attention, _weights(getattr(layers[-1], "mlp", None), config))

    def run(self, run: Run) -> int:
        """Operations (a multiplication and an addition are two) of a run, forward and, with a graph, backward."""
        own = run.tokens * (run.tokens + 1) // 2  # causal: each sees itself and those before
        live, everything = run.tokens * run.live + own, run.tokens * (run.frozen + run.live) + own
        forward = 2 * run.tokens * self.weights + 4 * everything * self.attention  # scores, and the weighted sum
        if not run.has_graph:
            return forward
        # Backward: of attention, for queries and weights over all places, for keys and values over live ones.
        return forward + 2 * run.tokens * self.weights + 4 * (everything + live) * self.attention

    def without_last_mlp(self, tokens: int, has_graph: bool = True) -> int:
        """Operations that tokens save which predict nothing."""
        return 2 * (1 + has_graph) * tokens * self.last_mlp

    def predictions(self, places: int, has_graph: bool = True) -> int:
        """Operations of the output layer, forward and, with a graph, backward."""
        return 2 * (1 + has_graph) * places * self.head


def plain_operations(costs: Costs, examples: Sequence[Example]) -> int:
    """Of the padded batch, as PEFT computes it."""
    width = max(example.length for example in examples)
    return len(examples) * (costs.run(Run(width)) + costs.predictions(width))


def needed_operations(costs: Costs, examples: Sequence[Example], queries_kept: bool = False) -> int:
    """Of the same gradient with every token computed once; `queries_kept`: what precedes the slot was kept."""
    trunk = examples[0].tokens[: trunk_length(examples)]
    frozen = first_slot(trunk)  # computed once per run
    live = len(trunk) - frozen
    total = costs.run(Run(live, frozen)) - costs.without_last_mlp(live)
    total += costs.predictions(sum(len(e.target) for e in examples))
    for example in examples:
        branch = (*example.tokens[len(trunk) :], *example.target[:-1])
        query = 0 if live else first_slot(branch)
        if not queries_kept:
            total += costs.run(Run(query, frozen, has_graph=False)) - costs.without_last_mlp(query, has_graph=False)
        total += costs.run(Run(len(branch) - query, frozen + query, live))
        total -= costs.without_last_mlp(len(branch) - query - len(example.target))
    return total


def loss_operations(costs: Costs, examples: Sequence[Example]) -> int:
    """Of the likelihood of every target, with no gradient: a pass over the trunk, then one over each branch."""
    return _forward_operations(costs, examples, [e.target[:-1] for e in examples], [len(e.target) for e in examples])


def answer_operations(costs: Costs, examples: Sequence[Example], added: Sequence[int]) -> int:
    """Of answers: the query's last token predicts the first one, and every token added after the query another.

    Args:
        added: of each example, the tokens that are computed after its query: those of an answer but its last, or those
            of all choices that each is not predicted with.
    """
    return _forward_operations(costs, examples, [(0,) * count for count in added], [count + 1 for count in added])


def _forward_operations(
    costs: Costs, examples: Sequence[Example], following: Sequence[Sequence[int]], predicted: Sequence[int]
) -> int:
    trunk = trunk_length(examples)
    total = costs.run(Run(trunk, has_graph=False)) + costs.predictions(sum(predicted), has_graph=False)
    for example, tokens in zip(examples, following, strict=True):
        total += costs.run(Run(len(example.tokens) - trunk + len(tokens), trunk, has_graph=False))
    return total


def _weights(module: nn.Module | None, config: Any) -> int:
    """Weights that a token meets in matrix products: of a layer's experts, as many as it is sent to."""
    matrices = list(module.parameters()) if module else []
    routed = getattr(config, "num_experts_per_tok", None) or 1
    experts = sum(p.numel() // len(p) * min(routed, len(p)) for p in matrices if p.dim() == 3)
    return experts + sum(p.numel() for p in matrices if p.dim() == 2)
