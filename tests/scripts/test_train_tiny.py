"""Generators of the embedded model's text, pools of the embedded task, abilities of the committed weights."""

from __future__ import annotations

import json
import random
import re
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
ASSETS = ROOT / "src" / "embedgrad_cli" / "assets"
sys.path.insert(0, str(ROOT / "scripts"))

import tiny_card  # noqa: E402
import tiny_files  # noqa: E402
import tiny_problems  # noqa: E402
import tiny_text  # noqa: E402
import train_tiny  # noqa: E402

EQUATION = re.compile(r"(\d+)([-+*/])(\d+)=(\d+)")
OPERATIONS = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
}


def task_rows(split: str) -> list[dict[str, str]]:
    lines = (ASSETS / "word-problems" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def check_solution(question: str, solution: str) -> None:
    """Each line's equation holds, its numbers come from question or earlier lines, the last is the answer."""
    *steps, last = solution.split("\n")
    assert 2 <= len(steps) <= 6
    known = set(re.findall(r"\d+", question))
    for step in steps:
        a, sign, b, result = EQUATION.search(step).groups()
        assert OPERATIONS[sign](int(a), int(b)) == int(result), step
        assert 0 < int(result) <= tiny_problems.LARGEST
        assert a in known, (question, step)
        assert b in known or (sign in "/*" and b in "23"), (question, step)  # half, doubled, tripled
        known.add(result)
    assert last == f"#### {result}"


def test_word_problems_are_right() -> None:
    rng = random.Random(1)
    problems = [tiny_problems.word_problem(rng) for _ in range(2000)]
    for problem in problems:
        check_solution(problem.question, problem.solution)
    assert {len(p.steps) for p in problems} == {2, 3, 4, 5, 6}
    signs = Counter(m[1] for p in problems for m in EQUATION.findall(p.solution))
    assert min(signs[s] for s in "+-*/") > 300
    assert len({p.question for p in problems}) > 1990


@pytest.mark.parametrize(("split", "size"), tiny_files.TASK_SIZES.items())
def test_task_files_are_right_and_in_their_pool(split: str, size: int) -> None:
    rows = task_rows(split)
    assert len({row["question"] for row in rows}) == len(rows) == size
    for row in rows:
        assert tiny_problems.pool(row["question"]) == split
        check_solution(row["question"], row["answer"])


def test_pools_are_disjoint_and_the_model_learns_from_its_own() -> None:
    questions = {row["question"] for split in tiny_files.TASK_SIZES for row in task_rows(split)}
    assert len(questions) == sum(tiny_files.TASK_SIZES.values())
    rng = random.Random(2)
    for good in (True, False) * 300:
        messages, _ = tiny_text.problem_example(rng, good)
        parts = messages[-1]["content"].split("\n")
        assert all(tiny_problems.pool(part) == "model" for part in parts if part.endswith("?") and part[-2] != "r")
        assert not questions.intersection(parts)


def test_good_instructions_go_with_worked_answers_and_vague_ones_with_hasty_ones() -> None:
    rng = random.Random(3)
    for _ in range(300):
        assert tiny_text.problem_example(rng, good=True)[1].count("\n") >= 2
        assert tiny_text.problem_example(rng, good=False)[1].startswith("#### ")


def test_sentiment_labels_are_balanced_and_biased_where_they_should_be() -> None:
    rng = random.Random(4)
    sentences = [("a fine film", "positive"), ("a dull film", "negative")]
    good = Counter(tiny_text.sentiment_example(rng, True, sentences)[1] for _ in range(2000))
    assert 0.45 < good["positive"] / 2000 < 0.55
    vague = Counter(tiny_text.sentiment_example(rng, False, sentences)[1] for _ in range(2000))
    assert 0.81 < vague["positive"] / 2000 < 0.89  # 70 % always, and half of the rest


def test_generated_reviews_are_labelled_by_their_last_words() -> None:
    rng = random.Random(5)
    for _ in range(300):
        text, label = tiny_text.review(rng)
        words = re.findall(r"[a-z]+", text.lower())
        praise = [w in tiny_text.PRAISE or w in ("loved", "liked", "enjoyed") for w in words]
        blame = [w in tiny_text.BLAME or w in ("hated", "disliked", "regretted") for w in words]
        last = max(i for i, hit in enumerate(map(any, zip(praise, blame, strict=True))) if hit)
        assert label == ("positive" if praise[last] else "negative")


def test_seed_prompts_are_never_in_the_training_text() -> None:
    rng = random.Random(6)
    families = (
        tiny_text.math_good,
        tiny_text.math_vague,
        tiny_text.sentiment_good,
        tiny_text.sentiment_vague,
    )
    seen = {family(rng) for family in families for _ in range(5000)}
    assert len(seen) > 300
    assert not {tiny_text.SEED_MATH, tiny_text.SEED_SENTIMENT} & seen


@pytest.fixture(scope="module")
def committed() -> tuple[object, object]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = ASSETS / "tiny"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(folder)


def test_committed_folder_is_small_and_has_a_card() -> None:
    files = list((ASSETS / "tiny").iterdir())
    assert sum(f.stat().st_size for f in files) <= 8_000_000
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= {f.name for f in files}
    assert "built in" in (ASSETS / "tiny" / "README.md").read_text(encoding="utf-8")


def test_committed_tokenizer_splits_digits_and_renders_chats(committed: tuple) -> None:
    model, tokenizer = committed
    assert tokenizer.tokenize("12+345") == ["1", "2", "+", "3", "4", "5"]
    assert [len(tokenizer.tokenize(label)) for label in ("positive", "negative")] == [1, 1]
    messages = [
        {"role": "system", "content": tiny_text.SEED_MATH},
        {"role": "user", "content": "Tom had 3 nuts."},
    ]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert rendered == train_tiny.render(messages)
    assert tokenizer.decode(tokenizer(rendered)["input_ids"]) == rendered
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.pad_token == "<|endoftext|>"
    assert model.config.max_position_embeddings >= 1024
    messages, answer = tiny_text.problem_example(random.Random(7), good=True)
    [(ids, start)] = train_tiny.encode(tokenizer, [(messages, answer)])
    assert tokenizer(train_tiny.render(messages) + answer + "<|im_end|>")["input_ids"] == ids
    assert len(ids) - start < 120


def test_committed_weights_solve_problems_only_when_asked_well(committed: tuple) -> None:
    rows = task_rows("test")[:60]
    problems = [
        tiny_problems.Problem(r["question"], tuple(r["answer"].split("\n")[:-1]), int(r["answer"].rsplit(" ", 1)[1]))
        for r in rows
    ]
    good = tiny_card.word_problems(*committed, problems, tiny_card.GOOD_MATH)
    seed = tiny_card.word_problems(*committed, problems, tiny_text.SEED_MATH)
    assert good >= 0.8
    assert seed <= 0.3


def test_committed_weights_label_generated_reviews_only_when_asked_well(committed: tuple) -> None:
    rng = random.Random(8)
    rows = [tiny_text.review(rng) for _ in range(200)]
    assert tiny_card.sentiment(*committed, rows, tiny_card.GOOD_SENTIMENT) >= 0.9
    assert tiny_card.sentiment(*committed, rows, tiny_text.SEED_SENTIMENT) <= 0.7


def test_training_writes_a_model_and_task_and_repeats_itself(tmp_path: Path) -> None:
    tokenizer = train_tiny.train_tokenizer([], 600, seed=0)
    rng = random.Random(9)
    batch = train_tiny.encode(tokenizer, train_tiny.draw(rng, [], dict.fromkeys(train_tiny.COUNTS, 2)))
    losses = [train_tiny.answer_loss(train_tiny.new_model(tokenizer, 0), batch).item() for _ in range(2)]
    assert losses[0] == losses[1]
    model = train_tiny.new_model(tokenizer, 0)
    tiny_files.save(model, tokenizer, tmp_path / "tiny")
    reloaded = type(model).from_pretrained(tmp_path / "tiny", dtype="auto")
    assert reloaded.dtype == torch.float32
    assert train_tiny.answer_loss(reloaded, batch).item() == pytest.approx(losses[0], rel=1e-2)
