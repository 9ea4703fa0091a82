"""Operations of answers and losses, counted by hand and by PyTorch. Those of a step: tests/scripts/test_bench.py."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.conftest import make_model
from tests.core.passes.parity import encoded_rows
from torch.utils.flop_counter import FlopCounterMode

from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.passes.operations import Costs, Run, answer_operations, loss_operations
from embedgrad_cli.core.passes.scoring import Decoder, generate
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.marked_tokens import Example

EXAMPLES = [Example("0", (-1, -2, 11), (7, 8)), Example("1", (-1, -2, 12, 13), (7,))]


def test_answers_and_losses_are_counted_as_the_page_says() -> None:
    costs = Costs(weights=10, head=100, attention=1)
    trunk = costs.run(Run(2, has_graph=False))
    after = [costs.run(Run(tokens, frozen=2, has_graph=False)) for tokens in range(4)]
    heads = [costs.predictions(places, has_graph=False) for places in range(6)]
    assert loss_operations(costs, EXAMPLES) == trunk + after[2] + after[2] + heads[3]
    assert answer_operations(costs, EXAMPLES, [0, 0]) == trunk + after[1] + after[2] + heads[2]
    assert answer_operations(costs, EXAMPLES, [2, 1]) == trunk + after[3] + after[3] + heads[5]
    assert costs.predictions(3) == 2 * heads[3]


def test_counted_operations_are_those_that_run() -> None:
    """Matrix products of scores, losses and answers, without the last layer's MLP at places that predict nothing."""
    model = make_model("qwen2")
    encoded = encoded_rows(model, "system")
    costs, prompt = Costs.of(model.network), SoftPrompt.from_seed(encoded.slots, model)
    forward, examples = Forward(model, encoded.examples), encoded.examples
    costs = replace(costs, attention=0)
    tokens = len(forward.trunk) + sum(len(e.tokens) - len(forward.trunk) for e in examples)
    needed = answer_operations(costs, examples, [0] * len(examples))
    left_out = costs.without_last_mlp(tokens - len(examples) - 2, has_graph=False)  # one place of each trunk's passes
    assert products(lambda: Decoder(forward, prompt).score_choices(examples, [(5,)])) == needed - left_out
    count = 5
    one = [examples[0]]
    answer = products(lambda: generate(Forward(model, examples), one, prompt, count, 1))
    alone = products(lambda: generate(Forward(model, examples), one, prompt, 1, 1))
    per_token = answer_operations(costs, one, [1]) - answer_operations(costs, one, [0])
    if answer != alone:  # it may end at once
        assert (answer - alone) % per_token == 0


def products(call: object) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call()  # type: ignore[operator]
    return sum(n for op, n in counter.get_flop_counts()["Global"].items() if "mm" in str(op))


def test_of_experts_those_count_that_a_token_is_sent_to() -> None:
    network = make_model("mixtral").network
    both = Costs.of(network).weights
    network.config.num_experts_per_tok = 1
    experts = sum(p[0].numel() for layer in network.model.layers for p in layer.parameters() if p.dim() == 3)
    assert both - Costs.of(network).weights == pytest.approx(experts)
    assert experts > 0
