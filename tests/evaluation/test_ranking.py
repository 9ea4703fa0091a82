"""How choices are ranked: a label that begins another, labels of different lengths, and a blank in front of them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import PLACEMENTS, SEEDS, evaluate_config, make_model, optimize_config, samples

from embedgrad_cli.commands import evaluate, optimize
from embedgrad_cli.config.schema import OptimizeConfig, TemplateConfig
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.errors import UserError

PREFIXED = {"0": "positive", "1": "positive film"}
UNEVEN = {"0": "apples", "1": "a gripping, funny and humane film"}
CUE = TemplateConfig(PLACEMENTS["system"].messages, "{prompt}\n{query}\nAnswer: ")


def problem(folder: Path, model: Path, data: Path, labels: dict[str, str], **changes: Any) -> OptimizeConfig:
    named = {"task__labels": labels, "task__choices": list(labels.values())}
    return optimize_config(folder, model, data, **named, **changes)


def written(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


def likelihood(model: LanguageModel, context: list[int], answer: list[int]) -> float:
    """By the network itself, of the tokens of an answer after a context."""
    logits = model.network(torch.tensor([[*context, *answer]])).logits[0, len(context) - 1 : -1]
    return logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).sum().item()


@pytest.mark.parametrize("template", ["chat", "plain"])
def test_scores_are_those_of_the_label_and_the_end_of_its_turn(
    template: str, tmp_path: Path, model_folder: Path, choice_data: Path
) -> None:
    trained = problem(tmp_path, model_folder, choice_data, PREFIXED, model__template=template)
    evaluate.run(evaluate_config(trained, tmp_path / "run", arms=["seed"]))
    model, lines = make_model(), samples(tmp_path / "run")
    end = model.tokenizer.eos_token_id
    for line in lines:
        text = f"{SEEDS[0]}\n{line['query']}\n"
        if template == "chat":
            turns = [{"role": "system", "content": SEEDS[0]}, {"role": "user", "content": line["query"]}]
            text = model.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        context = model.tokenizer(text)["input_ids"]
        for label, score in line["scores"].items():
            expected = likelihood(model, context, [*model.tokenizer(label)["input_ids"], end])
            assert score == pytest.approx(expected, abs=1e-4)
        assert line["output"] == max(line["scores"], key=line["scores"].__getitem__)
    assert written(tmp_path / "run")["scoring"] == {"rule": "sum", "num_with_end": len(lines)}


def test_a_label_that_begins_with_another_can_win(tmp_path: Path, choice_data: Path) -> None:
    """This network says " film" after "positive", and ends its turn after that."""
    model = make_model("llama")
    for layer in model.network.model.layers:
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
    label, end = model.tokenizer(PREFIXED["1"])["input_ids"], model.tokenizer.eos_token_id
    begun = len(model.tokenizer(PREFIXED["0"])["input_ids"])
    head, table = model.network.lm_head.weight.zero_(), model.network.get_input_embeddings().weight
    for token, following in itertools.pairwise([*label[begun - 1 :], end]):
        head[following] += 10 * table[token] / table[token].norm()
    for part in (model.network, model.tokenizer):
        part.save_pretrained(tmp_path / "model")
    trained = problem(tmp_path, tmp_path / "model", choice_data, PREFIXED)
    evaluate.run(evaluate_config(trained, tmp_path / "run", arms=["seed"]))
    assert {line["output"] for line in samples(tmp_path / "run")} == {PREFIXED["1"]}


def test_a_blank_before_a_label_is_scored_with_it(tmp_path: Path, model_folder: Path, choice_data: Path) -> None:
    """As in lm-evaluation-harness (`_encode_pair`): the blank goes from the context to every choice."""
    trained = problem(tmp_path, model_folder, choice_data, UNEVEN, model__template="plain", template=CUE)
    evaluate.run(evaluate_config(trained, tmp_path / "run", arms=["seed"]))
    model = make_model()
    for line in samples(tmp_path / "run"):
        text = f"{SEEDS[0]}\n{line['query']}\nAnswer:"
        context = model.tokenizer(text)["input_ids"]
        for label, score in line["scores"].items():
            whole = model.tokenizer(f"{text} {label}")["input_ids"]
            assert whole[: len(context)] == context
            assert score == pytest.approx(likelihood(model, context, whole[len(context) :]), abs=1e-4)


@pytest.mark.parametrize("rule", ["mean", "normalized"])
def test_a_rule_ranks_in_validation_and_test_and_again(
    rule: str, tmp_path: Path, model_folder: Path, choice_data: Path
) -> None:
    words = {"train__steps": 2, "task__score": rule}
    trained = problem(tmp_path / "trained", model_folder, choice_data, UNEVEN, **words)
    optimize.run(trained)
    tested = written(tmp_path / "trained")
    assert tested["scoring"] == {"rule": rule, "num_with_end": 0}
    tokenizer = make_model().tokenizer
    for line in samples(tmp_path / "trained"):
        tokens = {label: len(tokenizer(label)["input_ids"]) for label in line["scores"]}
        assert line["choice_tokens"] == tokens
        lengths = tokens if rule == "mean" else {label: len(label) for label in tokens}
        assert line["output"] == max(lengths, key=lambda label: line["scores"][label] / lengths[label])
    validation = {"arms": ["seed"], "split": "validation"}
    evaluate.run(evaluate_config(trained, tmp_path / "selected", **validation))
    steps = map(json.loads, (tmp_path / "trained/metrics.jsonl").read_text().splitlines())
    first = next(step["validation_accuracy"] for step in steps if "validation_accuracy" in step)
    assert written(tmp_path / "selected")["arms"]["seed"]["accuracy"] == first

    artifact = str(tmp_path / "trained/prompt.safetensors")
    summed = evaluate_config(trained, tmp_path / "again", artifact, task__score="sum")
    evaluate.run(summed)
    by_sum = samples(tmp_path / "again")
    assert [line["output"] for line in by_sum] != [line["output"] for line in samples(tmp_path / "trained")]
    evaluate.run(evaluate_config(trained, tmp_path / "again", artifact, mode="regrade"))
    assert samples(tmp_path / "again") == samples(tmp_path / "trained")
    regraded = written(tmp_path / "again")
    assert {key: regraded[key] for key in ("arms", "comparison", "scoring")} == {
        key: tested[key] for key in ("arms", "comparison", "scoring")
    }
    evaluate.run(evaluate_config(trained, tmp_path / "again", artifact, mode="regrade", task__score="sum"))
    assert samples(tmp_path / "again") == by_sum


def test_answers_of_earlier_versions_have_no_mean(tmp_path: Path, model_folder: Path, choice_data: Path) -> None:
    trained = problem(tmp_path, model_folder, choice_data, UNEVEN)
    evaluate.run(evaluate_config(trained, tmp_path / "run", arms=["none", "seed"]))
    file = tmp_path / "run/samples.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines:
        del line["choice_tokens"], line["with_end"]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = tmp_path / "run/config.yaml"
    config.write_text(config.read_text().replace("  score: sum\n", ""))
    again = {"arms": ["none", "seed"], "mode": "regrade"}
    with pytest.raises(UserError, match=r"task\.score=mean.*samples\.jsonl"):
        evaluate.run(evaluate_config(trained, tmp_path / "run", **again, task__score="mean"))
    evaluate.run(evaluate_config(trained, tmp_path / "run", **again, task__score="normalized"))
    assert written(tmp_path / "run")["scoring"]["rule"] == "normalized"
    assert any(line["output"] == UNEVEN["1"] for line in samples(tmp_path / "run"))
