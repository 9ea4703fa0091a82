"""One greedy: whatever a model's generation_config says, the export, Python and the slow path answer as evaluation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from tests.exports.conftest import NEW_TOKENS, QUERIES, Case, make_case
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

import embedgrad_cli
from embedgrad_cli.config.schema import ModelConfig
from embedgrad_cli.core.model.load import load_model
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.passes.scoring import generate

COMMON = [5, 6, 7, 8]  # tokens; a test puts those of the answers in their place
# Values that change answers, or the call itself, where `generate` obeys them.
SETTINGS: dict[str, dict[str, Any]] = {
    "repetition_penalty": {"repetition_penalty": 3.0},
    "no_repeat_ngram_size": {"no_repeat_ngram_size": 1},
    "bad_words_ids": {"bad_words_ids": [[token] for token in COMMON]},
    "sequence_bias": {"sequence_bias": [[[token], -50.0] for token in COMMON]},
    "suppress_tokens": {"suppress_tokens": COMMON},
    "begin_suppress_tokens": {"begin_suppress_tokens": COMMON},
    "forced_eos_token_id": {"forced_eos_token_id": 11, "max_length": 3},
    "min_length": {"min_length": 300},
    "min_new_tokens": {"min_new_tokens": NEW_TOKENS},
    "exponential_decay_length_penalty": {"exponential_decay_length_penalty": [1, 9.0]},
    "guidance_scale": {"guidance_scale": 4.0},
    "watermarking_config": {"watermarking_config": {"greenlist_ratio": 0.1, "bias": 40.0}},
    "do_sample": {"do_sample": True, "temperature": 3.0, "top_p": 0.9, "top_k": 0},
    "other warpers": {"do_sample": True, "min_p": 0.01, "typical_p": 0.9, "epsilon_cutoff": 1e-4, "eta_cutoff": 1e-4},
    "num_beams": {"num_beams": 4, "length_penalty": -2.0, "early_stopping": True},
    "max_time": {"max_time": 1e-9},
    "stop_strings": {"stop_strings": ["a"]},
    "return_dict_in_generate": {"return_dict_in_generate": True, "output_scores": True},
    "cache_implementation": {"cache_implementation": "static"},
    "prompt_lookup_num_tokens": {"prompt_lookup_num_tokens": 2},
    "renormalize_logits": {"renormalize_logits": True, "remove_invalid_values": True},
}


def likeliest(case: Case) -> list[list[int]]:
    """The reference: the largest logit of whole passes over token embeddings, one row at a time."""
    answers = []
    for example in case.examples:
        tokens = list(example.tokens)
        while len(tokens) < len(example.tokens) + NEW_TOKENS:
            embeds = case.prompt.embed(torch.tensor([tokens]), case.model)
            tokens.append(int(case.model.network(inputs_embeds=embeds, use_cache=False).logits[0, -1].argmax()))
            if tokens[-1] in case.model.end_ids:
                break
        answers.append([token for token in tokens[len(example.tokens) :] if token not in case.model.end_ids])
    return answers


def case_with(tmp_path: Path, settings: dict[str, Any]) -> tuple[Case, list[list[int]]]:
    """A model that says so. Its answers end at a token that some of them hold, so that not all are cut off."""
    case = make_case(tmp_path, tied=False)
    free = likeliest(case)
    end = next(token for token in free[0][3:] if token not in free[0][:3])
    common = sorted({token for answer in free for token in answer} - {end})
    said = json.dumps(settings).replace(json.dumps(COMMON), json.dumps(common))
    said = said.replace(json.dumps([[token] for token in COMMON]), json.dumps([[token] for token in common]))
    biases = [[[[token], -50.0] for token in tokens] for tokens in (COMMON, common)]
    said = said.replace(*map(json.dumps, biases))
    (case.folder / "generation_config.json").write_text(
        json.dumps(json.loads(said) | {"eos_token_id": end, "pad_token_id": 0})
    )
    case = replace(
        case, model=load_model(ModelConfig(str(case.folder), None, "auto", "auto", False), torch.device("cpu"))
    )
    assert end in case.model.end_ids
    return case, likeliest(case)


def without_end(tokens: list[int], case: Case) -> list[int]:
    return tokens[: next((i for i, token in enumerate(tokens) if token in case.model.end_ids), len(tokens))]


def served(case: Case, network: Any, tokenizer: Any) -> list[list[int]]:
    """The recipe of docs/serving.md, without a word on how to generate."""
    answers = []
    for query in QUERIES:
        inputs = tokenizer.apply_chat_template(
            [{"role": "user", "content": query}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        output = network.generate(**inputs, max_new_tokens=NEW_TOKENS)
        answers.append(without_end(output[0, inputs["input_ids"].shape[1] :].tolist(), case))
    return answers


@pytest.mark.parametrize("key", SETTINGS)
def test_every_way_of_answering_is_that_of_evaluation(key: str, tmp_path: Path) -> None:
    case, expected = case_with(tmp_path, SETTINGS[key])
    assert 0 < min(map(len, expected)) < NEW_TOKENS
    assert case.answers() == expected
    slow = generate(Forward(case.model, case.examples, shares_trunk=False), case.examples, case.prompt, NEW_TOKENS, 4)
    assert [answer for (answer,) in slow] == expected

    for exported in ("model", "peft"):
        assert case.export(exported, tmp_path / exported) == 0
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert served(case, AutoModelForCausalLM.from_pretrained(tmp_path / "model"), tokenizer) == expected
    base = AutoModelForCausalLM.from_pretrained(case.folder)
    base.generation_config = GenerationConfig.from_pretrained(tmp_path / "peft")
    adapted = PeftModel.from_pretrained(base, tmp_path / "peft")
    assert served(case, adapted, AutoTokenizer.from_pretrained(tmp_path / "peft")) == expected

    prompt, network = embedgrad_cli.load(case.artifact), AutoModelForCausalLM.from_pretrained(case.folder)
    inputs = prompt.apply(network, case.model.tokenizer, [[{"role": "user", "content": query}] for query in QUERIES])
    arguments = prompt.greedy(network, case.model.tokenizer)
    output = network.generate(**inputs, **arguments, max_new_tokens=NEW_TOKENS)
    assert [without_end(row, case) for row in output.tolist()] == expected


def test_a_request_for_a_server_of_the_model_itself_says_so_too(case: Case, tmp_path: Path) -> None:
    """vLLM takes the defaults of requests from the model's generation_config: these, and the length."""
    assert case.export("embeds", tmp_path / "out") == 0
    request = json.loads((tmp_path / "out/request.json").read_text())
    assert request["temperature"] == 0
    assert request["repetition_penalty"] == 1


def test_a_model_that_would_answer_otherwise_is_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    case, _ = case_with(tmp_path, SETTINGS["repetition_penalty"])
    prompt, turns = embedgrad_cli.load(case.artifact), [{"role": "user", "content": "How many?"}]
    caplog.clear()
    for _ in range(2):
        prompt.apply(case.model.network, case.model.tokenizer, turns)
    assert [record.name for record in caplog.records] == ["embedgrad_cli.prompt"]
    assert "repetition_penalty=3.0" in caplog.text
