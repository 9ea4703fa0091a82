"""The choice objective by the trunk: loss and gradient of a plain computation, one choice of one row at a time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import PLACEMENTS, ROWS, SEEDS, make_model, optimize_config
from tests.core.passes.parity import ARCHITECTURES, assert_parity, moved_prompt
from tests.core.passes.test_savings import count_tokens

from embedgrad_cli.commands import optimize
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.objectives.choice import Choice, row_choices
from embedgrad_cli.core.passes.forward import GOLD, Forward
from embedgrad_cli.core.passes.query_cache import QueryCache
from embedgrad_cli.core.passes.scoring import score_choices
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.answer_tokens import encode_choices
from embedgrad_cli.core.text.encoding import Encoded, encode
from embedgrad_cli.core.text.template import PromptTemplate
from embedgrad_cli.errors import DataError

ONE_TOKEN, SEVERAL, NESTED = ("3", "7", "9"), ("Yes", "No way", "apples"), ("1", "10", "pages")
MIXED = [NESTED, ONE_TOKEN[:2], SEVERAL]
RULES = {"sum": (1.0, 0.0), "mean": (0.7, 0.3), "normalized": (1.0, 0.0)}  # with weights of choice and gold


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


def assert_plain(forward: Forward, encoded: Encoded, prompt: SoftPrompt, objective: Choice, size: int | None) -> None:
    assert_parity(forward, encoded.examples, prompt, plain_loss(forward.model, encoded, prompt, objective), size)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_trunk_gives_the_plain_loss_and_gradient(architecture: str, placement: str) -> None:
    """Of choices that differ by row, some of them of several tokens, or the beginning of others."""
    for (rule, weights), size in zip(RULES.items(), (None, 2, 3), strict=True):
        model, encoded, prompt, objective = case(architecture, placement, MIXED, rule, weights)
        forward = Forward(model, encoded.examples, objective=objective)
        assert len(forward.trunk) > 2
        assert_plain(forward, encoded, prompt, objective, size)


@pytest.mark.parametrize("architecture", ["qwen2", "gemma2", "gpt2"])
@pytest.mark.parametrize("rule", RULES)
def test_labels_of_one_token(architecture: str, rule: str) -> None:
    for weights in ((1.0, 0.0), (0.5, 2.0)):
        model, encoded, prompt, objective = case(architecture, "system", [ONE_TOKEN], rule, weights)
        assert objective.longest == 1
        assert_plain(Forward(model, encoded.examples, objective=objective), encoded, prompt, objective, None)


@pytest.mark.parametrize(
    "settings",
    [{"shares_trunk": False}, {"checkpoint_activations": True}, {"queries": QueryCache(10**9)}],
    ids=lambda settings: next(iter(settings)),
)
@pytest.mark.parametrize("placement", ["system", "after-query"])
def test_every_way_of_computing_gives_the_plain_gradient(settings: dict[str, Any], placement: str) -> None:
    model, encoded, prompt, objective = case("qwen2", placement, MIXED, "mean", (0.7, 0.3))
    forward = Forward(model, encoded.examples, objective=objective, **settings)
    for _ in range(2):
        assert_plain(forward, encoded, prompt, objective, 3)


@pytest.mark.parametrize("room", [0, -1, -20])
def test_a_window_that_padding_would_shorten_gives_the_plain_gradient(room: int) -> None:
    """Behind the longest row stand the tokens of the longest choice, of which the last predicts nothing."""
    model, encoded, prompt, objective = case("mistral", "system", MIXED, "sum", (1.0, 0.0))
    width = max(len(example.tokens) for example in encoded.examples) + objective.longest - 1
    model.network.config.sliding_window = width + room
    assert_plain(Forward(model, encoded.examples, objective=objective), encoded, prompt, objective, None)


@pytest.mark.parametrize("architecture", ["qwen2", "mistral", "gpt2"])
def test_scores_are_those_that_are_ranked(architecture: str) -> None:
    model, encoded, prompt, objective = case(architecture, "system", [SEVERAL], "sum", (1.0, 0.0))
    forward = Forward(model, encoded.examples, objective=objective)
    trunk, ids = forward.compute_trunk(prompt), objective.rows[encoded.examples[0].id].choices.ids
    ranked = torch.tensor(score_choices(forward, encoded.examples, ids, prompt, batch_size=5))
    labels = [ids] * len(encoded.examples)
    scores = forward.choice_scores(encoded.examples, prompt, trunk, labels, absolute=True).detach()
    torch.testing.assert_close(scores, ranked, rtol=1e-5, atol=1e-5)
    relative = forward.choice_scores(encoded.examples, prompt, trunk, labels, absolute=False).detach()
    torch.testing.assert_close(relative.log_softmax(1), ranked.log_softmax(1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("placement", ["system", "after-query"])
def test_labels_of_one_token_cost_what_gold_costs_but_the_vocabulary(
    placement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, encoded, prompt, objective = case("qwen2", placement, [ONE_TOKEN], "sum", (1.0, 0.0))
    assert model.has_plain_head  # found out by a forward pass of its own
    seen, passes = count_tokens(model), []
    for other in (GOLD, objective):
        seen.clear()
        Forward(model, encoded.examples, objective=other).accumulate_gradient(encoded.examples, prompt)
        passes.append(list(seen))
        monkeypatch.setattr("embedgrad_cli.core.passes.network_pass.frozen_head_losses", None)
        monkeypatch.setattr("embedgrad_cli.core.passes.choice_scores.frozen_head_losses", None)
        monkeypatch.setattr(model.network.get_output_embeddings(), "forward", None)
    assert passes[0] == passes[1]


def test_a_conversation_is_computed_once_however_many_choices_it_has() -> None:
    """Of each choice only what follows its first token is computed besides, and the trunk once for all rows."""
    model, encoded, prompt, objective = case("qwen2", "system", [SEVERAL], "sum", (1.0, 0.0))
    assert model.has_plain_head
    forward, seen = Forward(model, encoded.examples, objective=objective), count_tokens(model)
    forward.accumulate_gradient(encoded.examples, prompt, 2)
    branches = sum(len(example.tokens) - len(forward.trunk) for example in encoded.examples)
    more = sum(len(ids) - 1 for example in encoded.examples for ids in objective.rows[example.id].choices.ids)
    assert sum(seen) == len(forward.trunk) + branches + more


def test_a_row_must_hold_its_longest_choice(tmp_path: Path, choice_data: Path, model_folder: Path) -> None:
    """The gold label fits the context and another one does not."""
    labels = {"0": "a", "1": "humane film " * 300}
    rows = [json.dumps({"text": f"apples {i}", "label": 0}) for i in range(8)]
    for split in ("train", "validation", "test"):
        (tmp_path / f"{split}.jsonl").write_text("\n".join(r.replace("apples", split) for r in rows))
    changes = {"task__labels": labels, "task__choices": list(labels.values()), "objective__name": "choice"}
    with pytest.raises(DataError, match="train:0 needs"):
        optimize.run(optimize_config(tmp_path / "run", model_folder, tmp_path, **changes))
