"""`format=text`: what is read, what is measured, what a search finds; on tiny models and real command lines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.artifacts import edited
from tests.conftest import PLACEMENTS, SEEDS, make_model, optimize_config

from embedgrad_cli.cli import main as cli
from embedgrad_cli.commands import optimize
from embedgrad_cli.config.schema import Message, OptimizeConfig, TemplateConfig
from embedgrad_cli.core.model.load import load_model
from embedgrad_cli.core.model.nearest_tokens import best_tokens
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.prompt.artifact import load_artifact, save_artifact
from embedgrad_cli.core.prompt.nearest_text import nearest_text, one_text_per_slot, texts_of, unwritable
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.marked_tokens import Slots
from embedgrad_cli.errors import UserError
from embedgrad_cli.evaluation.arms import ArmPrompt, build_arms
from embedgrad_cli.evaluation.significance import paired_difference
from embedgrad_cli.evaluation.validation import answer_and_grade
from embedgrad_cli.tasks.load import load

SEARCH = ["search.budget=1500", "search.candidates=8", "search.top_k=16", "search.batch_size=8", "search.eval_every=3"]
Export = Callable[..., dict[str, Any]]


def train(folder: Path, model_folder: Path, data: Path, placement: str = "system", seed: Any = None) -> OptimizeConfig:
    """A run whose vectors went so far that some have another token as their nearest one."""
    config = optimize_config(folder, model_folder, data, template=PLACEMENTS[placement], trust_region__kind="none")
    config.prompt.text = seed or SEEDS[0]
    config.optimizer.lr, config.train.steps = 2.0, 4
    optimize.run(config)
    # Validation may have kept the seed itself; here vectors are wanted that moved.
    artifact = load_artifact(folder / "prompt.safetensors")
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        artifact.prompt.vectors += artifact.prompt.seed.std() * torch.randn(
            artifact.prompt.vectors.shape, generator=generator
        )
    save_artifact(folder / "prompt.safetensors", artifact.prompt, artifact.metadata)
    return config


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, model_folder: Path, choice_data: Path) -> OptimizeConfig:
    return train(tmp_path_factory.mktemp("trained"), model_folder, choice_data)


@pytest.fixture
def export(tmp_path: Path) -> Export:
    def run(config: OptimizeConfig, *more: str, to: str = "out") -> dict[str, Any]:
        line = ["export", f"artifact={config.output_dir}/prompt.safetensors", "format=text", "device=cpu"]
        assert cli.main([*line, f"output_dir={tmp_path / to}", *more]) == 0
        return json.loads((tmp_path / to / "text.json").read_text())

    return run


def test_the_reading_is_the_nearest_tokens_and_is_measured(
    trained: OptimizeConfig, export: Export, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = export(trained)

    artifact, model = load_artifact(Path(trained.output_dir) / "prompt.safetensors"), make_model()
    table = model.network.get_input_embeddings().weight
    cosine = torch.nn.functional.cosine_similarity(artifact.prompt.vectors[:, None], table[None], dim=2)
    cosine[:, unwritable(model)] = -2
    best = cosine.argmax(dim=1)
    tokens = report["tokens"]
    assert [token["nearest_id"] for token in tokens] == best.tolist() != artifact.prompt.slots.flat_ids
    distances = (artifact.prompt.vectors - table[best]).norm(dim=1)
    assert [token["distance"] for token in tokens] == pytest.approx(distances.tolist(), rel=1e-5)
    text = (tmp_path / "out/prompt.txt").read_text()
    assert text == model.tokenizer.decode(best).strip() + "\n" == report["texts"]["reading"][0] + "\n"
    assert report["texts"]["seed"] == SEEDS[:1]
    assert "not meanings" in report["warning"]

    told = capsys.readouterr().out
    assert told.index("Believe the accuracy below") < told.index("test examples: seed ")

    # The reading's accuracy is that of a user who wrote it as prompt.text.
    rows = load(trained.task, trained.seed).test
    loaded = load_model(trained.model, torch.device("cpu"))
    typed = build_arms(rows, loaded, trained.template, trained.task, {"typed": ArmPrompt((text.strip(),))})
    right = [outcome.correct for outcome in answer_and_grade(typed.arms["typed"], rows, trained.task, 4)]
    assert report["arms"]["reading"]["correct"] == sum(right)
    lines = [json.loads(line) for line in (tmp_path / "out/samples.jsonl").read_text().splitlines()]
    of = {name: [line["correct"] for line in lines if line["arm"] == name] for name in report["arms"]}
    assert of["reading"] == right
    for comparison in report["comparisons"]:
        baseline, candidate = comparison.pop("baseline"), comparison.pop("candidate")
        paired = vars(paired_difference(of[baseline], of[candidate]))
        assert {key: comparison[key] for key in paired} == {**paired, "ci95": list(paired["ci95"])}
        assert comparison["holm_p"] >= comparison["mcnemar_p"]
    results = json.loads((Path(trained.output_dir) / "results.json").read_text())
    assert report["arms"]["seed"] == results["arms"]["seed"]
    assert report["test_hash"] == results["test_hash"]


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["after-query", "both-sides"])
def test_a_search_finds_a_text_that_reads_back(
    placement: str, model_folder: Path, choice_data: Path, export: Export, tmp_path: Path
) -> None:
    config = train(tmp_path / "run", model_folder, choice_data, placement, SEEDS if placement == "both-sides" else None)
    report = export(config, *SEARCH)

    search, model = report["search"], make_model()
    best = min(search["history"], key=lambda entry: (-entry["accuracy"], entry["loss"]))
    begin = max(search["history"][:2], key=lambda entry: (entry["accuracy"], -entry["loss"]))
    found = report["texts"]["searched"]
    assert begin["texts"] == report["texts"][search["start"]]
    assert found == best["texts"] == search["texts"]
    assert min(entry["loss"] for entry in search["history"][2:]) < begin["loss"], "no swap lowered the loss"
    assert search["evaluations"] <= search["budget"] == 1500
    assert search["steps"] > 3
    assert set(report["arms"]) == {"seed", "optimized", "reading", "searched"}
    assert len(report["comparisons"]) == 5
    names = ["searched.txt"] if len(found) == 1 else ["searched.0.txt", "searched.1.txt"]
    assert [(tmp_path / "out" / name).read_text() for name in names] == [f"{text}\n" for text in found]

    # The loss that validation saw is that of the text itself, written into the template by a person.
    loaded = load_model(config.model, torch.device("cpu"))
    rows = load(config.task, config.seed).validation
    template = one_text_per_slot(config.template)
    prompts = {name: ArmPrompt(tuple(texts)) for name, texts in (("begun", begin["texts"]), ("typed", found))}
    begun, typed = build_arms(rows, loaded, template, config.task, prompts).arms.values()
    slots = typed.prompt.slots
    assert slots.num_tokens == begun.prompt.slots.num_tokens, "a candidate did not read back as its own tokens"
    assert texts_of(slots.flat_ids, slots, model.tokenizer) == found
    loss = Forward(loaded, typed.examples, shares_trunk=False).mean_loss(typed.examples, typed.prompt, 4)
    assert loss == pytest.approx(best["loss"], rel=1e-5)


@pytest.mark.slow
def test_the_same_search_again_finds_the_same(trained: OptimizeConfig, export: Export) -> None:
    first, second = (export(trained, *SEARCH, to=name)["search"] for name in ("a", "b"))
    other = export(trained, *SEARCH, "seed=9", to="c")["search"]
    assert first == second
    assert [entry["texts"] for entry in other["history"]] != [entry["texts"] for entry in first["history"]]


def test_the_gradient_proposes_the_swaps_with_the_steepest_slope() -> None:
    """The score of a token is the derivative of the loss towards it, by finite differences on the plain forward."""
    from tests.conftest import ROWS

    from embedgrad_cli.core.text.encoding import encode
    from embedgrad_cli.core.text.template import PromptTemplate

    model = make_model()
    model.network.double()
    prompt_template = PromptTemplate(PLACEMENTS["system"], SEEDS[:1], model.tokenizer, True)
    encoded = encode(ROWS, prompt_template, model, append_end_token=False)
    prompt = SoftPrompt.from_seed(encoded.slots, model)
    forward = Forward(model, encoded.examples)
    forward.accumulate_gradient(encoded.examples, prompt)
    gradient = prompt.vectors.grad
    assert gradient is not None
    ids, scores = best_tokens(lambda rows: -(gradient @ rows.T), model.embedding_table(), 3)
    table, step = model.network.get_input_embeddings().weight.float(), 1e-2

    def loss(place: int, direction: torch.Tensor) -> float:
        moved = SoftPrompt(prompt.slots, prompt.seed)
        with torch.no_grad():
            moved.vectors[place] += direction
        return Forward(model, [], shares_trunk=False).mean_loss(encoded.examples, moved, 4)

    for place in range(len(ids)):
        for token, score in zip(ids[place].tolist(), scores[place].tolist(), strict=True):
            slope = (loss(place, step * table[token]) - loss(place, -step * table[token])) / (2 * step)
            assert -slope == pytest.approx(score, rel=0.02, abs=1e-4)


@pytest.mark.slow
def test_two_slots_of_one_text_are_read_on_their_own(
    model_folder: Path, choice_data: Path, tmp_path: Path, export: Export
) -> None:
    twice = TemplateConfig([Message("system", "{prompt}"), Message("user", "{query}\n{prompt}")], "{prompt}{query}")
    assert one_text_per_slot(twice).messages[1].content == "{query}\n{prompt.1}"
    PLACEMENTS["twice"] = twice
    try:
        config = train(tmp_path / "run", model_folder, choice_data, "twice")
    finally:
        del PLACEMENTS["twice"]
    report = export(config)
    assert report["texts"]["seed"] == [SEEDS[0]] * 2
    first, second = report["texts"]["reading"]
    assert first != second
    assert (tmp_path / "out/prompt.1.txt").read_text() == f"{second}\n"


def test_tokens_that_are_no_text_are_never_read() -> None:
    model = make_model()
    forbidden = unwritable(model).tolist()
    assert set(model.tokenizer.all_special_ids) <= set(forbidden)
    allowed = sorted(set(range(len(model.tokenizer))) - set(forbidden))
    assert all("\ufffd" not in model.tokenizer.decode([token]) for token in allowed)
    assert len(allowed) > 200
    end = model.tokenizer.convert_tokens_to_ids("<|im_end|>")
    prompt = SoftPrompt.from_seed(Slots(((end, 60),)), model)
    assert end not in nearest_text(prompt, model).ids
    blank = SoftPrompt.from_seed(Slots((tuple(model.tokenizer(" ")["input_ids"]),)), model)
    with pytest.raises(UserError):
        nearest_text(blank, model)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["search.budget=50"], "search.budget=50"),
        (["search.budget=-1"], "search.budget:"),
        (["data_dir=nowhere"], "data_dir: 'nowhere'"),
        (["format=embeds", "search.budget=9"], "search.budget:"),
        (["format=embeds", "export.search=true"], "search.budget:"),
        (["format=embeds", "data_dir=."], "data_dir:"),
        (["push=a/b"], "push:"),
    ],
)
def test_wrong_input_leaves_nothing(
    more: list[str], words: str, trained: OptimizeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["export", f"artifact={trained.output_dir}/prompt.safetensors", "format=text", "device=cpu"]
    line = [word for word in line if "format=embeds" not in more or not word.startswith("format=")]
    assert cli.main([*line, f"output_dir={tmp_path}/out", *more]) == 2
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_data_that_moved(trained: OptimizeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    artifact = load_artifact(Path(trained.output_dir) / "prompt.safetensors")
    metadata = edited(artifact.metadata, config__task__data_dir="/no/longer/here")
    save_artifact(tmp_path / "moved.safetensors", artifact.prompt, metadata)
    line = ["export", f"artifact={tmp_path}/moved.safetensors", "format=text", f"output_dir={tmp_path}/out"]
    assert cli.main(line) == 2
    assert "'/no/longer/here'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert cli.main([*line, f"data_dir={trained.task.data_dir}"]) == 0
