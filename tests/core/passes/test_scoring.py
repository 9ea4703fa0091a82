"""Scores and answers by the trunk equal those of the plain forward, one example at a time."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.conftest import PLACEMENTS, ROWS, SEEDS, make_model

from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.passes.generation import widest
from embedgrad_cli.core.passes.sampling import Sampling
from embedgrad_cli.core.passes.scoring import Decoder, batches_by_length, generate, score_choices
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.encoding import encode
from embedgrad_cli.core.text.template import PromptTemplate
from embedgrad_cli.storage.interrupts import StopAsked, StopRequest

ARCHITECTURES = ["qwen2", "llama", "mistral", "gemma2", "gpt2"]


def setup(architecture: str, placement: str) -> tuple[Forward, Forward, SoftPrompt]:
    model = make_model(architecture)
    prompt_template = PromptTemplate(PLACEMENTS[placement], SEEDS, model.tokenizer, True)
    encoded = encode(ROWS, prompt_template, model, append_end_token=False)
    prompt = SoftPrompt.from_seed(encoded.slots, model)
    with torch.no_grad():
        prompt.vectors.add_(0.05 * torch.randn(prompt.vectors.shape, generator=torch.Generator().manual_seed(1)))
    shared, plain = (Forward(model, encoded.examples, shares) for shares in (True, False))
    shared.examples = plain.examples = encoded.examples  # type: ignore[attr-defined]
    return shared, plain, prompt


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_choice_scores(architecture: str, placement: str) -> None:
    shared, plain, prompt = setup(architecture, placement)
    choices = [(5,), (17, 30), (17, 31, 12)]
    examples = shared.examples  # type: ignore[attr-defined]
    actual = score_choices(shared, examples, choices, prompt, batch_size=3)
    expected = score_choices(plain, examples, choices, prompt, batch_size=3)
    torch.testing.assert_close(torch.tensor(actual), torch.tensor(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_greedy_answers(architecture: str, placement: str) -> None:
    shared, _, prompt = setup(architecture, placement)
    examples = shared.examples  # type: ignore[attr-defined]
    model = shared.model
    answers = generate(shared, examples, prompt, max_new_tokens=12, batch_size=3)
    assert any(answer for (answer,) in answers)
    for example, answer in zip(examples, answers, strict=True):
        embeds = prompt.embed(torch.tensor([example.tokens]), model)
        expected: list[int] = []
        while len(expected) < 12:
            token = int(model.network(inputs_embeds=embeds).logits[0, -1].argmax())
            if token in model.end_ids:
                break
            expected.append(token)
            embeds = torch.cat([embeds, model.embed(torch.tensor([[token]]))], dim=1)
        assert answer == [expected]


def test_an_answer_does_not_end_at_a_line_break() -> None:
    """The chat template writes one in front of the token that ends a turn; this network has nothing else to say."""
    model = make_model("gpt2")
    assert isinstance(model.tokenizer.chat_template, str)
    model.tokenizer.chat_template = model.tokenizer.chat_template.replace("<|im_end|>", "\n<|im_end|>")
    (line_break,) = model.tokenizer("\n")["input_ids"]
    last_norm = model.network.transformer.ln_f
    last_norm.weight.zero_()
    last_norm.bias.copy_(100 * model.network.get_input_embeddings().weight[line_break])
    prompt_template = PromptTemplate(PLACEMENTS["system"], SEEDS, model.tokenizer, True)
    encoded = encode(ROWS, prompt_template, model, append_end_token=False)
    prompt = SoftPrompt.from_seed(encoded.slots, model)
    for shares in (True, False):
        answers = generate(Forward(model, encoded.examples, shares), encoded.examples[:2], prompt, 5, 2)
        assert answers == [[[line_break] * 5]] * 2


def test_an_answer_ends_where_the_context_does() -> None:
    shared, _, prompt = setup("qwen2", "system")
    example = shared.examples[0]  # type: ignore[attr-defined]
    shared.model.network.config.max_position_embeddings = len(example.tokens) + 4
    (answer,) = generate(shared, [example], prompt, max_new_tokens=50, batch_size=1)
    assert len(answer[0]) <= 4


def test_a_recurrent_model_scores_and_generates_by_the_plain_forward() -> None:
    _, plain, prompt = setup("mamba", "system")
    examples = plain.examples  # type: ignore[attr-defined]
    scores = score_choices(plain, examples, [(5,), (17, 30)], prompt, batch_size=2)
    assert len(scores) == len(examples)
    answers = generate(plain, examples[:2], prompt, max_new_tokens=4, batch_size=2)
    assert all(len(answer) == 1 and len(answer[0]) <= 4 for answer in answers)


def test_batches_hold_one_length_where_a_gap_would_matter() -> None:
    shared, _, _ = setup("mistral", "system")
    examples = shared.examples  # type: ignore[attr-defined]
    batches = list(batches_by_length(shared, examples, batch_size=4, following=0))
    assert sorted(i for batch in batches for i in batch) == list(range(len(examples)))
    assert all(len({len(examples[i].tokens) for i in batch}) == 1 for batch in batches)


@pytest.mark.parametrize("architecture", ["mistral", "gemma2"])
@pytest.mark.parametrize(("room", "is_mixed"), [(2 * 12, True), (2 * 12 - 1, False), (-30, False)])
def test_rows_that_fit_the_window_with_all_that_follows_share_batches(
    architecture: str, room: int, is_mixed: bool
) -> None:
    """Two answers grow at a time, so rows come in after gaps; a window of just that width still gives exact numbers."""
    shared, plain, prompt = setup(architecture, "after-query")
    examples = shared.examples  # type: ignore[attr-defined]
    longest = max(len(example.tokens) for example in examples)
    shared.model.network.config.sliding_window = longest + room
    *_, with_longest = batches_by_length(shared, examples, 5, following=widest(0, 12))
    assert (len(with_longest) > 1) is is_mixed
    answers = generate(shared, examples, prompt, max_new_tokens=12, batch_size=2)
    assert answers == [generate(shared, [example], prompt, 12, 1)[0] for example in examples]
    assert answers == generate(plain, examples, prompt, 12, 1)
    choices = [(5,), (17, 31, 12)]
    actual = score_choices(shared, examples, choices, prompt, batch_size=5)
    expected = score_choices(plain, examples, choices, prompt, batch_size=1)
    torch.testing.assert_close(torch.tensor(actual), torch.tensor(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("room", "is_shared"), [(0, True), (-1, False), (-30, False)])
def test_queries_before_the_prompt_are_computed_once_where_all_fits_the_window(room: int, is_shared: bool) -> None:
    shared, plain, prompt = setup("mistral", "after-query")
    examples = shared.examples  # type: ignore[attr-defined]
    trunk = shared.compute_trunk(prompt)
    cuts = [next(i for i, token in enumerate(example.tokens) if token < 0) for example in examples]
    width = max(cuts) + max(example.length - 1 - cut for example, cut in zip(examples, cuts, strict=True))
    shared.model.network.config.sliding_window = width + room
    key_values, _ = shared.compute_before_slot(examples, prompt, trunk)
    assert (key_values.width > trunk.width) is is_shared
    gradients = []
    for forward in (shared, plain):
        prompt.vectors.grad = None
        forward.accumulate_gradient(examples, prompt)
        gradients.append(prompt.vectors.grad)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize("architecture", ["qwen2", "gemma2"])
def test_samples_do_not_depend_on_the_batch(architecture: str) -> None:
    shared, _, prompt = setup(architecture, "system")
    examples = shared.examples  # type: ignore[attr-defined]
    sampling = Sampling(num_samples=3, temperature=0.8, top_p=0.9, seed=5)
    answers = generate(shared, examples, prompt, max_new_tokens=10, batch_size=3, sampling=sampling)
    assert [len(samples) for samples in answers] == [3] * len(examples)
    assert any(a != b for samples in answers for a, b in itertools.combinations(samples, 2))
    for batch_size in (1, 5):
        assert generate(shared, examples, prompt, 10, batch_size, sampling) == answers
    assert generate(shared, examples[::-1], prompt, 10, 2, sampling) == answers[::-1]
    assert generate(shared, examples, prompt, 10, 3, replace(sampling, seed=6)) != answers
    alone = generate(shared, examples, prompt, 10, 3, replace(sampling, num_samples=1))
    assert [samples[:1] for samples in answers] == alone, "the first sample is the same however many follow"


def test_a_recurrent_model_samples() -> None:
    _, plain, prompt = setup("mamba", "system")
    sampling = Sampling(num_samples=2, temperature=1.0, seed=1)
    examples = plain.examples[:2]  # type: ignore[attr-defined]
    answers = generate(plain, examples, prompt, max_new_tokens=6, batch_size=2, sampling=sampling)
    assert answers == generate(plain, examples, prompt, max_new_tokens=6, batch_size=1, sampling=sampling)
    assert answers[0][0] != answers[0][1]


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(num_samples=3, temperature=0.8, seed=5)])
def test_a_stop_string_cuts_the_answer_that_would_have_been(sampling: Sampling) -> None:
    """In any batch; the stop strings are parts of free answers and straddle tokens."""
    shared, _, prompt = setup("qwen2", "system")
    examples, tokenizer = shared.examples, shared.model.tokenizer  # type: ignore[attr-defined]
    free = generate(shared, examples, prompt, 24, 3, sampling)
    texts = [tokenizer.decode(answer, skip_special_tokens=True) for of_row in free for answer in of_row]
    stop = [text[5:7] for text in texts if len(text) > 8 and "\ufffd" not in text[5:7]]
    assert stop
    expected = []
    for of_row in free:
        for ids in of_row:
            said = [tokenizer.decode(ids[:n], skip_special_tokens=True) for n in range(len(ids) + 1)]
            ended = (n for n, text in enumerate(said) if any(one in text for one in stop))
            expected.append(ids[: next(ended, len(ids))])
    assert sum(map(len, expected)) < sum(len(ids) for of_row in free for ids in of_row)
    for batch_size in (1, 2, 5):
        stopped = generate(shared, examples, prompt, 24, batch_size, sampling, stop)
        assert [ids for of_row in stopped for ids in of_row] == expected


@pytest.mark.parametrize("architecture", ["qwen2", "mamba"])
def test_the_plain_path_ends_answers_in_the_same_way(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shared, plain, prompt = setup(architecture, "system")
    forwards = [plain] if architecture == "mamba" else [plain, shared]
    examples, model = plain.examples[:3], plain.model  # type: ignore[attr-defined]
    free = generate(plain, examples, prompt, 12, 2)
    say = lambda ids: model.tokenizer.decode(ids, skip_special_tokens=True)  # noqa: E731
    stop = [say(free[0][0])[2:4]]
    for forward in forwards:
        (first,), *others = Decoder(forward, prompt).generate(examples, 12, 2, stop=stop)
        assert (first.ending, len(first.ids) < len(free[0][0])) == ("stop", True)
        assert first.ids == free[0][0][: len(first.ids)]
        assert all(answer.ending == "limit" or stop[0] in say(answer.ids) for (answer,) in others)
    monkeypatch.setitem(vars(model), "end_ids", {free[1][0][3]})
    for forward in forwards:
        (answer,) = Decoder(forward, prompt).generate(examples[1:2], 12, 2)[0]
        assert answer.ending == "end_of_turn"
        assert answer.ids == free[1][0][: free[1][0].index(free[1][0][3])]


@pytest.mark.parametrize("shares_trunk", [True, False])
def test_a_stop_waits_for_one_token_at_most(shares_trunk: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    shared, plain, prompt = setup("qwen2", "system")
    forward, calls = shared if shares_trunk else plain, []
    network, run = forward.model.network, type(forward.model.network).forward

    def counting(*arguments: Any, **more: Any) -> Any:
        calls.append(more)
        stop.requested = len(calls) >= 4
        return run(network, *arguments, **more)

    monkeypatch.setattr(network, "forward", counting)
    with StopRequest() as stop, pytest.raises(StopAsked):
        generate(forward, forward.examples, prompt, max_new_tokens=50, batch_size=8)  # type: ignore[attr-defined]
    assert len(calls) == 4
