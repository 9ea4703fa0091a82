"""A model behind a server and the same model in this process give the same answers, the exported prompt included."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.chat_server import chat_server
from tests.commands.apples import run_on_apples
from tests.conftest import evaluate_config, samples

from embedgrad_cli.cli.main import main
from embedgrad_cli.commands import evaluate, evaluate_server
from embedgrad_cli.config.schema import OptimizeConfig
from embedgrad_cli.errors import DataError

TEXT = "text:Give the answer."


def answering(folder: Path, max_tokens: int) -> Callable[[list[dict[str, str]]], str]:
    """Plain transformers on a model folder, as a server would use it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)

    @torch.no_grad()
    def answer(messages: list[dict[str, str]]) -> str:
        inputs = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        output = model.generate(**inputs, do_sample=False, max_new_tokens=max_tokens)
        return tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    return answer


@pytest.fixture
def trained(tmp_path: Path, model_folder: Path) -> OptimizeConfig:
    return run_on_apples(tmp_path, model_folder, task__fewshot=1, train__steps=4)


@pytest.mark.slow
def test_the_same_answers_by_chat(trained: OptimizeConfig, model_folder: Path, tmp_path: Path) -> None:
    artifact = f"{trained.output_dir}/prompt.safetensors"
    assert main(["export", f"artifact={artifact}", "format=model", f"output_dir={tmp_path}/model"]) == 0
    evaluate.run(evaluate_config(trained, tmp_path / "here", artifact, arms=["none", "seed", TEXT, "optimized"]))
    with (
        chat_server(answering(tmp_path / "model", 8)) as served,
        chat_server(answering(model_folder, 8)) as plain,
    ):
        there = {"server": served.url, "texts__server": plain.url, "requests__at_once": 1}
        arms = {"arms": ["none", "seed", TEXT, "served"]}
        evaluate_server.run(evaluate_config(trained, tmp_path / "there", artifact, **there, **arms))
        with pytest.raises(DataError, match="trained or selected the prompt"):
            evaluate_server.run(evaluate_config(trained, tmp_path / "no", artifact, **there, **arms, split="train"))
    here, by_chat = (
        {(line["arm"].replace("served", "optimized"), line["id"]): line["output"] for line in samples(tmp_path / name)}
        for name in ("here", "there")
    )
    assert len({output for (arm, row), output in here.items() if row == "test:0"}) > 1, "the prompts do differ"
    assert by_chat == here
    results = [json.loads((tmp_path / name / "results.json").read_text()) for name in ("here", "there")]
    assert results[0]["arms"]["optimized"]["ci95"] == results[1]["arms"]["served"]["ci95"]
    assert results[0]["test_hash"] == results[1]["test_hash"]
