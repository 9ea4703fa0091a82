"""The main job on real files, a real tokenizer and a real pretrained model, as a user would run it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import torch
from tests.conftest import SHARED_DATA, make_network, shared_data

from embedgrad_cli.cli.main import main
from embedgrad_cli.config.folder import conf_dir

pytestmark = pytest.mark.slow

SMALL = ["train.steps=2", "train.batch_size=4", "train.eval_every=2", "task.split.num_train=16"]
SMALL += ["task.split.num_validation=8", "task.split.num_test=12", "log_level=warning", "device=cpu"]
TASKS = {"gsm8k": "gsm8k", "math": "math", "sst2": "sst2", "causal-judgement": "bbh"}
SLOW_TASKS = ["task.max_new_tokens=24"]


def results(run: Path) -> dict:
    return json.loads((run / "results.json").read_text())


def samples(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("task", TASKS)
def test_every_task_runs_end_to_end(task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data_dir = shared_data(TASKS[task])
    more = [] if task in ("sst2", "causal-judgement") else SLOW_TASKS
    command = ["optimize", f"task={task}", f"task.data_dir={data_dir}", "task.too_long=skip", *SMALL, *more]
    assert main([*command, f"output_dir={tmp_path}/run"]) == 0
    summary = results(tmp_path / "run")
    # A row that does not fit the tiny model's context is left out of every arm alike, and counted.
    assert summary["num_examples"] + summary["num_skipped"] == 12
    assert {arm["correct"] <= summary["num_examples"] for arm in summary["arms"].values()} == {True}
    assert "no significant difference" in " ".join(capsys.readouterr().out.split())
    evaluate = ["evaluate", f"artifact={tmp_path}/run/prompt.safetensors", "device=cpu"]
    assert main([*evaluate, f"output_dir={tmp_path}/again"]) == 0
    assert results(tmp_path / "again")["arms"] == summary["arms"]


def test_sst2_is_also_answered_in_words(tmp_path: Path) -> None:
    data_dir = shared_data("sst2")
    command = ["optimize", "task=sst2", f"task.data_dir={data_dir}", "task.kind=generation", "prompt=sentiment"]
    assert main([*command, *SMALL, f"output_dir={tmp_path}"]) == 0
    assert {line["extracted"] for line in samples(tmp_path)} <= {"negative", "positive", None}
    assert {line["answer"] for line in samples(tmp_path)} <= {"negative", "positive"}


def test_five_folds_of_causal_judgement_are_pooled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = ["task=causal-judgement", f"task.data_dir={shared_data('bbh')}", "task.too_long=skip"]
    folds = ["task.split.folds=5", "task.fold=0,1,2,3,4", "task.split.num_validation=2"]
    few = ["train.steps=0", "log_level=error", "device=cpu"]
    command = ["optimize", "--multirun", *task, *folds, "prompt=causal-judgement", *few, f"output_dir={tmp_path}"]
    assert main(command) == 0
    every = [results(tmp_path / str(fold)) for fold in range(5)]
    tested = [line["id"] for fold in range(5) for line in samples(tmp_path / str(fold)) if line["arm"] == "seed"]
    assert len(tested) == len(set(tested)) == sum(one["num_examples"] for one in every)
    assert sum(one["num_examples"] + one["num_skipped"] for one in every) == 183
    capsys.readouterr()
    assert main(["compare", str(tmp_path), "--format=json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["num_examples"] == len(tested)
    assert row["arms.seed.correct"] == sum(one["arms"]["seed"]["correct"] for one in every)


def test_choices_of_the_rows_own_and_worked_examples(tmp_path: Path) -> None:
    task = ["task=bbh", "task.name=hyperbaton", f"task.data_dir={shared_data('bbh')}", "task.kind=choice"]
    command = ["optimize", *task, "task.fewshot=2", "task.fewshot_style=turns", *SMALL, f"output_dir={tmp_path}/run"]
    assert main(command) == 0
    assert {line["extracted"] for line in samples(tmp_path / "run")} <= {"(A)", "(B)"}
    artifact = f"artifact={tmp_path}/run/prompt.safetensors"
    assert main(["evaluate", artifact, "device=cpu", f"output_dir={tmp_path}/again"]) == 0
    assert results(tmp_path / "again")["arms"] == results(tmp_path / "run")["arms"]
    assert main(["export", artifact, f"output_dir={tmp_path}/exported"]) == 0
    template = json.loads((tmp_path / "exported" / "prompt_embeds.json").read_text())["template"]
    assert [message["role"] for message in template["messages"]] == ["system", *["user", "assistant"] * 2, "user"]


def test_what_is_said_to_come_next_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = f"output_dir={tmp_path}/a run"
    assert main(["optimize", "experiment=lab/word-problems", *SMALL, *SLOW_TASKS, run]) == 0
    said = capsys.readouterr().out
    commands = [shlex.split(line)[1:] for line in said.splitlines() if line.startswith("  embedgrad ")]
    assert [words[0] for words in commands] == ["evaluate", "export"]
    for words in commands:
        more = ["output_dir=" + str(tmp_path / "again"), "device=cpu"] if words[0] == "evaluate" else []
        assert main([*words, *more]) == 0


def test_a_pretrained_model_that_is_not_ours(tmp_path: Path) -> None:
    model, data_dir = shared_data("models/stories260K"), shared_data("sst2")
    command = ["optimize", "model=local", f"model.path={model}", "task=sst2", f"task.data_dir={data_dir}"]
    assert main([*command, "prompt=sentiment", *SMALL, f"output_dir={tmp_path}"]) == 0
    assert results(tmp_path)["num_examples"] == 12


@pytest.mark.parametrize(
    ("task", "placement"),
    [("gsm8k", "system"), ("math", "after-query"), ("sst2", "before-query"), ("causal-judgement", "after-query")],
)
def test_step_0_parity_with_the_real_qwen_tokenizer(task: str, placement: str) -> None:
    from omegaconf import OmegaConf
    from transformers import AutoTokenizer

    from embedgrad_cli.config.build import build
    from embedgrad_cli.config.compose import Composer
    from embedgrad_cli.core.model.language_model import LanguageModel
    from embedgrad_cli.core.passes.forward import Forward
    from embedgrad_cli.core.passes.network_pass import logits_and_cache
    from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
    from embedgrad_cli.core.text.encoding import encode
    from embedgrad_cli.core.text.template import PromptTemplate
    from embedgrad_cli.tasks.load import load

    overrides = [f"task={task}", f"task.data_dir={shared_data(TASKS[task])}", f"template={placement}"]
    cfg = Composer().compose("optimize", overrides)
    body = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    config, problems = build("optimize", OmegaConf.to_container(body, resolve=True))
    assert config is not None, problems
    tokenizer = AutoTokenizer.from_pretrained(shared_data("tokenizers/qwen2.5"))
    model = LanguageModel(make_network("qwen2", len(tokenizer)), tokenizer, "tests/qwen2.5", None, True)
    rows = load(config.task, 0).test[:6]
    prompt_template = PromptTemplate(config.template, [config.prompt.text], tokenizer, True)
    encoded = encode(rows, prompt_template, model, append_end_token=False, reserve=1, too_long="skip")
    kept = [row for row in rows if row.id not in encoded.skipped]
    assert kept
    prompt = SoftPrompt.from_seed(encoded.slots, model)
    assert tokenizer.decode(encoded.slots.flat_ids).strip() == config.prompt.text
    forward = Forward(model, encoded.examples)
    trunk = forward.compute_trunk(prompt)
    for row, example in zip(kept, encoded.examples, strict=True):
        fields = {"{prompt}": config.prompt.text, "{query}": row.query}
        messages = []
        for message in config.template.messages:
            content = message.content
            for name, value in fields.items():
                content = content.replace(name, value)
            messages.append({"role": message.role, "content": content})
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        expected = model.network(torch.tensor([ids])).logits[0, -1]
        branch = example.tokens[len(forward.trunk) :]
        logits, _ = logits_and_cache(model, [branch], trunk, prompt, [len(branch) - 1])
        torch.testing.assert_close(logits[0], expected, rtol=1e-4, atol=1e-4)


def test_the_repository_holds_none_of_these_files() -> None:
    """Their licences and canaries are not ours to pass on."""
    if not SHARED_DATA.exists():
        pytest.skip("the real files are not here: looked for in ../shared/data")
    repository = Path(__file__).parents[1]
    ours = [p for p in repository.rglob("*.jsonl") if ".venv" not in p.parts and "outputs" not in p.parts]
    lines = {line for path in ours for line in path.read_text(encoding="utf-8").splitlines()}
    real = (SHARED_DATA / "gsm8k/test.jsonl").read_text(encoding="utf-8").splitlines()
    assert lines.isdisjoint(real)
    assert conf_dir().is_dir()
