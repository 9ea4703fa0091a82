"""What the network here says of the greedy answers of another engine."""

from __future__ import annotations

import logging

import pytest
import torch
from tests.conftest import make_model
from tests.core.passes.parity import encoded_rows, moved_prompt

from embedgrad_cli.core.passes.engine_check import check_greedy, widest_gap
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.passes.scoring import generate


@pytest.mark.parametrize("shares_trunk", [True, False])
def test_another_token_is_as_far_behind_as_its_logit(shares_trunk: bool) -> None:
    model = make_model()
    encoded = encoded_rows(model, "both-sides")
    prompt, examples = moved_prompt(encoded, model), encoded.examples
    forward = Forward(model, examples, shares_trunk)
    answers = [answer for (answer,) in generate(forward, examples, prompt, max_new_tokens=6, batch_size=8)]
    own = widest_gap(forward, prompt, examples, answers)
    assert own is not None
    assert own.size < 1e-5
    assert own.num_tokens == sum(map(len, answers))

    with torch.no_grad():
        tokens = torch.tensor([[*examples[1].tokens, *answers[1][:2]]])
        logits = model.network(inputs_embeds=prompt.embed(tokens, model)).logits[0, -1]
    other = int(logits.argsort()[-3])
    answers[1] = [*answers[1][:2], other]
    gap = widest_gap(forward, prompt, examples, answers)
    assert gap is not None
    assert gap.size == pytest.approx((logits.max() - logits[other]).item(), rel=1e-4)
    assert gap.row == examples[1].id
    assert widest_gap(forward, prompt, examples, [[] for _ in examples]) is None


@pytest.mark.parametrize(("swap", "level"), [(False, "INFO"), (True, "WARNING")])
def test_more_than_a_tie_is_warned_of(swap: bool, level: str, caplog: pytest.LogCaptureFixture) -> None:
    """Of many rows, a handful are looked at."""
    model = make_model()
    encoded = encoded_rows(model, "system", times=5)
    prompt, examples = moved_prompt(encoded, model), encoded.examples
    forward = Forward(model, examples)
    answers = [answer for (answer,) in generate(forward, examples, prompt, max_new_tokens=4, batch_size=8)]
    if swap:
        answers = [[(answer[0] + 1) % 300, *answer[1:]] for answer in answers]
    with caplog.at_level(logging.INFO, "embedgrad_cli"):
        check_greedy("vllm", forward, prompt, examples, answers)
    (record,) = caplog.records
    assert record.levelname == level
    assert len(examples) == 25
    assert "7 answers" in record.getMessage()
