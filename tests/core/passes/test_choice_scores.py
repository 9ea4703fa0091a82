"""The choice objective by the trunk: loss and gradient of a plain computation, one choice of one row at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from tests.conftest import PLACEMENTS, ROWS, SEEDS, make_model
from tests.core.passes.parity import ARCHITECTURES, gradient_of, moved_prompt

from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.objectives.choice import Choice, row_choices
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.encoding import Encoded, encode, encode_choices
from embedgrad_cli.core.text.template import PromptTemplate

ONE_TOKEN, SEVERAL, NESTED = ("3", "7", "9"), ("Yes", "No way", "apples"), ("1", "10", "pages")
WEIGHTS = [(1.0, 0.0), (0.7, 0.3)]


def case(
    architecture: str, placement: str, sets: Sequence[tuple[str, ...]], rule: str, weights: tuple[float, float]
) -> tuple[LanguageModel, Encoded, SoftPrompt, Choice]:
    """Rows with the sets of choices in turn; the gold choice is another one in each row."""
    model = make_model(architecture)
    template = PromptTemplate(PLACEMENTS[placement], SEEDS, model.tokenizer, model.is_chat)
    names = [sets[number % len(sets)] for number in range(len(ROWS))]
    rows = [
        replace(row, choices=of_row, target=of_row[number % len(of_row)], answer="")
        for number, (row, of_row) in enumerate(zip(ROWS, names, strict=True))
    ]
    choices = {of_row: encode_choices(of_row, template) for of_row in sets}
    encoded = encode(rows, template, model, append_end_token=False)
    return model, encoded, moved_prompt(encoded, model), Choice(row_choices(rows, choices, rule), *weights)  # type: ignore[arg-type]


def plain_loss(model: LanguageModel, encoded: Encoded, prompt: SoftPrompt, objective: Choice) -> torch.Tensor:
    """From whole sequences, without any of the product's passes."""
    losses = []
    for example in encoded.examples:
        row, scores = objective.rows[example.id], []
        for ids in row.choices.ids:
            embeds = prompt.embed(torch.tensor([[*example.tokens, *ids]]), model)
            logits = model.network(inputs_embeds=embeds, use_cache=False).logits[0].float().log_softmax(-1)
            first = len(example.tokens) - 1
            scores.append(sum(logits[first + i, token] for i, token in enumerate(ids)))
        ranked = torch.stack([score / d for score, d in zip(scores, row.divisors, strict=True)])
        gold = -scores[row.gold] / len(row.choices.ids[row.gold])
        losses.append(objective.choice_weight * (ranked.logsumexp(0) - ranked[row.gold]) + objective.gold_weight * gold)
    return torch.stack(losses).mean()


def assert_parity(forward: Forward, encoded: Encoded, prompt: SoftPrompt, objective: Choice, size: int | None) -> None:
    plain = plain_loss(forward.model, encoded, prompt, objective)
    expected = gradient_of(plain, prompt)
    prompt.vectors.grad = None
    loss = forward.accumulate_gradient(encoded.examples, prompt, size)
    assert loss.item() == pytest.approx(plain.item(), rel=1e-5)
    assert prompt.vectors.grad is not None
    assert (prompt.vectors.grad - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize(
    "sets", [[ONE_TOKEN], [SEVERAL], [NESTED, ONE_TOKEN[:2], SEVERAL]], ids=["one", "several", "mixed"]
)
def test_trunk_gives_the_plain_loss_and_gradient(
    architecture: str, placement: str, sets: list[tuple[str, ...]]
) -> None:
    for rule, weights, size in [("sum", (1.0, 0.0), None), ("mean", (0.7, 0.3), 2), ("normalized", (1.0, 0.0), 2)]:
        model, encoded, prompt, objective = case(architecture, placement, sets, rule, weights)
        forward = Forward(model, encoded.examples, objective=objective)
        assert len(forward.trunk) > 2
        assert_parity(forward, encoded, prompt, objective, size)
