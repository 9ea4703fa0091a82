"""What a prompt changes on requests outside of its task, in any template, by any model."""

from __future__ import annotations

import logging
from statistics import fmean

import pytest
import torch
from tests.conftest import CHAT_TEMPLATE, PLACEMENTS, SEEDS, make_model

from embedgrad_cli import assets
from embedgrad_cli.config.schema import TemplateConfig
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.encoding import Renderings
from embedgrad_cli.core.text.marked_tokens import Slots
from embedgrad_cli.core.text.template import PromptTemplate
from embedgrad_cli.evaluation import elsewhere
from embedgrad_cli.evaluation.elsewhere import Request, measure_elsewhere, requests
from embedgrad_cli.storage.results_record import Elsewhere


def prompt_of(model: LanguageModel, template: TemplateConfig, by: float = 0.1) -> SoftPrompt:
    """The seed in this template, moved."""
    rendered = Renderings(PromptTemplate(template, SEEDS, model.tokenizer, model.is_chat)).tokens_of(requests()[:1])
    prompt = SoftPrompt.from_seed(next(rendered)[1], model)
    with torch.no_grad():
        prompt.vectors.add_(by * torch.randn(prompt.vectors.shape, generator=torch.Generator().manual_seed(1)))
    return prompt


def measured(model: LanguageModel, template: TemplateConfig, by: float = 0.1, shares_trunk: bool = True) -> Elsewhere:
    found = measure_elsewhere(prompt_of(model, template, by), model, template, SEEDS, shares_trunk)
    assert found is not None
    return found


def test_the_requests_can_be_rendered_by_any_template() -> None:
    found = requests()
    assert len({request.id for request in found}) == len({request.query for request in found}) == len(found) >= 24
    for request in found:
        assert request.query == request.query.strip() != ""
        assert request.reply == request.reply.strip() != ""


def test_they_are_no_rows_of_the_embedded_tasks() -> None:
    tasks = "".join(file.read_text() for file in assets.ELSEWHERE.parent.glob("*/*.jsonl"))
    assert not [request.query for request in requests() if request.query in tasks]


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("chat", [True, False], ids=["chat", "plain"])
def test_every_placement(placement: str, chat: bool) -> None:
    model, template = make_model("qwen2", chat), PLACEMENTS[placement]
    far, near, nowhere = (measured(model, template, by) for by in (0.3, 0.03, 0.0))
    assert far.kl > near.kl > nowhere.kl == nowhere.first_token_kl == 0
    assert nowhere.same_token == 1 >= near.same_token >= far.same_token
    assert far.num_requests == len(requests()) == len(far.by_request)
    assert set(far.by_request) == {request.id for request in requests()}


@pytest.mark.parametrize("architecture", ["qwen2", "mistral", "gpt2"])
def test_a_model_without_a_shared_prefix_gives_the_same(architecture: str) -> None:
    model, template = make_model(architecture), PLACEMENTS["system"]
    by_trunk, plain = (measured(model, template, shares_trunk=shared) for shared in (True, False))
    assert by_trunk.kl == pytest.approx(plain.kl, rel=1e-3)
    assert by_trunk.by_request == pytest.approx(plain.by_request, rel=1e-2, abs=1e-6)


def test_every_token_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = list[float]()
    divergences = elsewhere.divergences

    def kept(*work: object) -> list[elsewhere.Divergence]:
        of_each = divergences(*work)  # type: ignore[arg-type]
        found.extend(value for one in of_each for value in one.kl)
        return of_each

    monkeypatch.setattr(elsewhere, "divergences", kept)
    whole = measured(make_model(), PLACEMENTS["system"])
    assert whole.num_tokens == len(found)
    assert whole.kl == pytest.approx(fmean(found))
    assert whole.kl != pytest.approx(fmean(whole.by_request.values()), rel=1e-4), "replies differ in length"


def test_a_request_that_the_chat_template_rewrites_is_left_out() -> None:
    model = make_model()
    model.tokenizer.chat_template = CHAT_TEMPLATE.replace("message['content']", "message['content'] | replace(':', '')")
    found = measured(model, PLACEMENTS["system"])
    assert set(found.by_request) == {request.id for request in requests() if ":" not in request.query}


def test_a_request_that_merges_with_the_prompt_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The prompt begins within a word of one query, whose last token then is the prompt's too."""
    model, template, seeds = (
        make_model("qwen2", chat=False),
        TemplateConfig([], "{query}{prompt}\n"),
        ["s does he have?"],
    )
    asked = [Request(query, query, "Three.") for query in ("How many?", "How many apple", "Tom has 3.")]
    monkeypatch.setattr(elsewhere, "requests", lambda: asked)
    rendered = list(Renderings(PromptTemplate(template, seeds, model.tokenizer, False)).tokens_of(asked))
    assert rendered[0][1] != rendered[1][1], "or nothing is tested here"
    prompt = SoftPrompt.from_seed(rendered[0][1], model)
    found = measure_elsewhere(prompt, model, template, seeds, True)
    assert found is not None
    assert list(found.by_request) == ["How many?", "Tom has 3."]


def test_what_cannot_be_measured_is_none(caplog: pytest.LogCaptureFixture) -> None:
    model, template = make_model(), PLACEMENTS["system"]
    other = SoftPrompt.from_seed(Slots(((5, 6),)), model)
    with caplog.at_level(logging.WARNING):
        assert measure_elsewhere(other, model, template, SEEDS, True) is None
    assert "elsewhere" in caplog.text
    prompt = prompt_of(model, template)
    model.network.config.max_position_embeddings = 20
    assert measure_elsewhere(prompt, model, template, SEEDS, True) is None
