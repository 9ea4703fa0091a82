"""Generators of the embedded model's text, pools of the embedded tasks, abilities of the committed weights."""

from __future__ import annotations

import json
import random
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.conftest import shared_data

ROOT = Path(__file__).parents[2]
ASSETS = ROOT / "src" / "embedgrad_cli" / "assets"
sys.path.insert(0, str(ROOT / "scripts"))

import train_tiny  # noqa: E402
from tiny import card, causes, files, instructions, mixture, problems, reviews  # noqa: E402
from tiny.pools import pool  # noqa: E402

EQUATION = re.compile(r"(\d+)([-+*/])(\d+)=(\d+)")
OPERATIONS = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
}


TASKS = {  # the field that identifies a row, and the one that holds its answer
    "word-problems": ("question", "answer"),
    "reviews": ("review", "label"),
    "causes": ("story", "answer"),
}


def task_rows(task: str, split: str) -> list[dict[str, str]]:
    lines = (ASSETS / task / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def check_solution(question: str, solution: str) -> None:
    """Each line's equation holds, its numbers come from question or earlier lines, the last is the answer."""
    *steps, last = solution.split("\n")
    assert 2 <= len(steps) <= 6
    known = set(re.findall(r"\d+", question))
    for step in steps:
        a, sign, b, result = EQUATION.search(step).groups()
        assert OPERATIONS[sign](int(a), int(b)) == int(result), step
        assert 0 < int(result) <= problems.LARGEST
        assert a in known, (question, step)
        assert b in known or (sign in "/*" and b in "23"), (question, step)  # half, doubled, tripled
        known.add(result)
    assert last == f"#### {result}"


def test_word_problems_are_right() -> None:
    rng = random.Random(1)
    drawn = [problems.word_problem(rng) for _ in range(2000)]
    for problem in drawn:
        check_solution(problem.question, problem.solution)
    assert {len(p.steps) for p in drawn} == {2, 3, 4, 5, 6}
    signs = Counter(m[1] for p in drawn for m in EQUATION.findall(p.solution))
    assert min(signs[s] for s in "+-*/") > 300
    assert len({p.question for p in drawn}) > 1990
    assert 0.08 < sum(p.is_short for p in drawn) / 2000 < 0.18


def test_reviews_are_labelled_by_their_last_opinion() -> None:
    """But for two forms, told apart by their words, the last opinion decides."""
    rng = random.Random(5)
    for _ in range(600):
        drawn = reviews.review(rng)
        words = re.findall(r"[a-z]+", drawn.question.lower())
        praise = [w in (*reviews.PRAISE, *reviews.LIKED) for w in words]
        blame = [w in (*reviews.BLAME, *reviews.DISLIKED) for w in words]
        last = max(i for i, hit in enumerate(map(any, zip(praise, blame, strict=True))) if hit)
        turned = "even if" in drawn.question or "nothing" in words
        assert drawn.label == ("positive" if praise[last] != turned else "negative"), drawn


def judge(story: str, asked: str, kind: str) -> bool:
    """The answer to a case, worked out again from its text alone."""
    joint = "two people" in story
    return {
        "norm": bool(re.search(r"ignored|broke the rules|was not allowed", story)) == joint,
        "actor": not re.search("stayed|watched|refused", story),
        "duty": bool(re.search(r"(had|promised|was paid) to .*(forgot|did nothing)", story)),
        "side-effect": bool(re.search(r"(was told|knew) that .*would harm", story)),
        "skill": not re.search("slipped|stumbled", story),
        "pre-emption": bool(re.search(rf"({asked} was there first|, {asked} was there)", story, re.IGNORECASE)),
        "necessary": joint,
        "sufficient": not joint,
    }[kind]


def test_causes_follow_their_rules() -> None:
    rng = random.Random(7)
    for _ in range(2000):
        case = causes.case(rng)
        story, question = case.question.rsplit(". ", 1)
        asked = " ".join(question.split()[1:3])
        assert case.label == ("Yes" if judge(story, asked, case.kind) else "No"), case


@pytest.mark.parametrize("generate", [reviews.review, causes.case])
def test_generated_labels_are_balanced(generate: Callable) -> None:
    rng = random.Random(8)
    drawn = [generate(rng) for _ in range(4000)]
    kinds = Counter((getattr(example, "kind", ""), example.label) for example in drawn)
    expected = 4000 / len(kinds)
    assert all(0.8 * expected < count < 1.2 * expected for count in kinds.values())


@pytest.mark.parametrize("split", files.TASK_SIZES)
@pytest.mark.parametrize("task", TASKS)
def test_task_files_are_right_and_in_their_pool(task: str, split: str) -> None:
    question, answer = TASKS[task]
    rows = task_rows(task, split)
    assert len({row[question] for row in rows}) == len(rows) == files.TASK_SIZES[split]
    assert all(pool(row[question]) == split for row in rows)
    if task == "word-problems":
        for row in rows:
            check_solution(row[question], row[answer])
    else:
        share = Counter(row[answer] for row in rows).most_common(1)[0][1] / len(rows)
        assert share < 0.58


@pytest.mark.slow
def test_committed_task_files_are_the_generators_own(tmp_path: Path) -> None:
    files.write_tasks(tmp_path, seed=0)
    for task in TASKS:
        for split in files.TASK_SIZES:
            assert (tmp_path / task / f"{split}.jsonl").read_bytes() == (ASSETS / task / f"{split}.jsonl").read_bytes()


def test_the_model_learns_from_its_own_pool() -> None:
    held_out = {row[TASKS[task][0]] for task in TASKS for split in files.TASK_SIZES for row in task_rows(task, split)}
    assert len(held_out) == len(TASKS) * sum(files.TASK_SIZES.values())
    rng = random.Random(2)
    counts = dict.fromkeys(mixture.COUNTS, 60)
    for messages, _ in mixture.draw(rng, [], counts):
        parts = messages[-1]["content"].split("\n")
        assert not held_out.intersection(parts)
        stories = [p for p in parts if p.endswith("?") and len(p.split()) > 10]
        assert all(pool(p) == "model" for p in stories)


def test_good_instructions_go_with_worked_answers_and_vague_ones_mostly_with_hasty_ones() -> None:
    rng = random.Random(3)
    assert all(mixture.problem_example(rng, good=True)[1].count("\n") >= 2 for _ in range(300))
    hasty = sum(mixture.problem_example(rng, good=False)[1].startswith("#### ") for _ in range(1000))
    assert 0.8 < hasty / 1000 < 0.94  # all but the short ones


@pytest.mark.parametrize(
    ("example", "biased"), [(mixture.sentiment_example, "positive"), (mixture.case_example, "Yes")]
)
def test_labels_are_balanced_under_good_instructions_and_biased_under_vague_ones(
    example: Callable, biased: str
) -> None:
    rng = random.Random(4)
    sentences = [[("a fine film", "positive"), ("a dull film", "negative")]] if biased == "positive" else []
    good = Counter(example(rng, True, *sentences)[1] for _ in range(2000))
    assert 0.45 < good[biased] / 2000 < 0.55
    vague = Counter(example(rng, False, *sentences)[1] for _ in range(2000))
    expected = 1 - mixture.HONEST / 2
    assert expected - 0.04 < vague[biased] / 2000 < expected + 0.04


def test_seed_prompts_are_never_in_the_training_text() -> None:
    rng = random.Random(6)
    i = instructions
    families = (i.math_good, i.math_vague, i.sentiment_good, i.sentiment_vague, i.causes_good, i.causes_vague)
    seen = {family(rng) for family in families for _ in range(5000)}
    assert len(seen) > 400
    assert not {i.SEED_MATH, i.SEED_SENTIMENT, i.SEED_CAUSES} & seen


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
        {"role": "system", "content": instructions.SEED_MATH},
        {"role": "user", "content": "Tom had 3 nuts."},
    ]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert rendered == train_tiny.render(messages)
    assert tokenizer.decode(tokenizer(rendered)["input_ids"]) == rendered
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.pad_token == "<|endoftext|>"
    assert model.config.max_position_embeddings >= 1024
    messages, answer = mixture.problem_example(random.Random(7), good=True)
    [(ids, start)] = train_tiny.encode(tokenizer, [(messages, answer)])
    assert tokenizer(train_tiny.render(messages) + answer + "<|im_end|>")["input_ids"] == ids
    assert len(ids) - start < 120


@pytest.mark.slow
def test_committed_weights_solve_problems_only_when_asked_well(committed: tuple) -> None:
    rows = task_rows("word-problems", "test")[:60]
    asked = [
        problems.Problem(r["question"], tuple(r["answer"].split("\n")[:-1]), int(r["answer"].rsplit(" ", 1)[1]))
        for r in rows
    ]
    assert card.solve(*committed, asked, card.MATH_PROMPTS[0]) >= 0.8
    assert card.solve(*committed, asked, instructions.SEED_MATH) <= 0.35


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "labels", "prompts", "good", "seed"),
    [
        ("reviews", reviews.LABELS, card.SENTIMENT_PROMPTS, 0.9, 0.7),
        ("causes", causes.LABELS, card.CAUSES_PROMPTS, 0.85, 0.65),
    ],
)
def test_committed_weights_choose_well_only_when_asked_well(
    committed: tuple, task: str, labels: tuple, prompts: list[str], good: float, seed: float
) -> None:
    question, answer = TASKS[task]
    rows = [(row[question], row[answer]) for row in task_rows(task, "test")]
    assert card.choose(*committed, rows, labels, prompts[0]) >= good
    assert card.choose(*committed, rows, labels, prompts[-1]) <= seed


@pytest.mark.slow
def test_committed_weights_know_the_sentiment_of_real_sentences(committed: tuple) -> None:
    rows = files.read_sst2(shared_data("sst2"), "validation")
    good = card.choose(*committed, rows, reviews.LABELS, card.SENTIMENT_PROMPTS[0])
    seed = card.choose(*committed, rows, reviews.LABELS, instructions.SEED_SENTIMENT)
    assert good >= 0.78
    assert good - seed >= 0.12


@pytest.mark.slow
def test_training_writes_a_model_and_task_and_repeats_itself(tmp_path: Path) -> None:
    tokenizer = train_tiny.train_tokenizer([], 600, seed=0)
    rng = random.Random(9)
    batch = train_tiny.encode(tokenizer, mixture.draw(rng, [], dict.fromkeys(mixture.COUNTS, 2)))
    losses = [train_tiny.answer_loss(train_tiny.new_model(tokenizer, 0), batch).item() for _ in range(2)]
    assert losses[0] == losses[1]
    model = train_tiny.new_model(tokenizer, 0)
    files.save(model, tokenizer, tmp_path / "tiny")
    reloaded = type(model).from_pretrained(tmp_path / "tiny", dtype="auto")
    assert reloaded.dtype == torch.float32
    assert train_tiny.answer_loss(reloaded, batch).item() == pytest.approx(losses[0], rel=1e-2)
