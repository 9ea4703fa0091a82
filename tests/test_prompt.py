"""The Python interface: what it gives a model is what `evaluate` gives it, and its documentation runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.artifacts import save_prompt
from tests.conftest import PLACEMENTS, ROWS, SEEDS, make_model, make_network, optimize_config

import embedgrad_cli
from embedgrad_cli.assets import resolve
from embedgrad_cli.cli import main as cli
from embedgrad_cli.config.schema import Message, TemplateConfig
from embedgrad_cli.core.kernels.packed_batch import PackedBatch
from embedgrad_cli.core.model.language_model import LanguageModel
from embedgrad_cli.core.passes.forward import Forward
from embedgrad_cli.core.passes.scoring import Decoder
from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt
from embedgrad_cli.core.text.conversation import render_turns
from embedgrad_cli.core.text.encoding import encode
from embedgrad_cli.core.text.template import PromptTemplate
from embedgrad_cli.errors import ArtifactError, TemplateError
from embedgrad_cli.prompt import Prompt

DOCS = Path(__file__).parents[1] / "docs"
FENCE = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def saved(path: Path, model: LanguageModel, placement: str, moved: float = 0.3) -> tuple[Prompt, SoftPrompt, list]:
    """An artifact for a tiny model whose vectors have moved, read again; and the rows as training encodes them."""
    several = placement == "both-sides"
    config = optimize_config(path, Path("model"), Path("data"), template=PLACEMENTS[placement])
    config.prompt.text = SEEDS if several else SEEDS[0]
    prompt_template = PromptTemplate(config.template, SEEDS if several else SEEDS[:1], model.tokenizer, model.is_chat)
    encoded = encode(ROWS, prompt_template, model, append_end_token=False)
    prompt = SoftPrompt.from_seed(encoded.slots, model)
    with torch.no_grad():
        prompt.vectors += moved * torch.randn(prompt.vectors.shape, generator=torch.Generator().manual_seed(0))
    save_prompt(path / "p.safetensors", prompt, model, config)
    return embedgrad_cli.load(path / "p.safetensors"), prompt, encoded.examples


@pytest.mark.parametrize(
    ("architecture", "chat", "placement"),
    [
        ("qwen2", True, "system"),
        ("qwen2", True, "after-query"),
        ("llama", True, "both-sides"),
        ("gemma", True, "before-query"),
        ("gpt2", False, "before-query"),
        ("gpt2", False, "both-sides"),
    ],
)
def test_apply_gives_the_embeddings_of_training(architecture: str, chat: bool, placement: str, tmp_path: Path) -> None:
    model = make_model(architecture, chat)
    prompt, vectors, examples = saved(tmp_path, model, placement)

    inputs = prompt.apply(model.network, model.tokenizer, [user(row.query) for row in ROWS])

    batch = PackedBatch.of([example.tokens for example in examples], model.device, left=True)
    assert torch.equal(inputs["attention_mask"], batch.mask.long())
    assert (inputs["attention_mask"][:, -1] == 1).all()
    assert torch.equal(inputs["inputs_embeds"], vectors.embed(batch.padded_tokens, model))
    together = model.network.generate(**inputs, max_new_tokens=8, do_sample=False, min_new_tokens=8, pad_token_id=0)
    for row, answer in zip(ROWS, together, strict=True):
        alone = prompt.apply(model.network, model.tokenizer, user(row.query))
        again = model.network.generate(**alone, max_new_tokens=8, do_sample=False, min_new_tokens=8, pad_token_id=0)
        assert torch.equal(again[0], answer)


def test_stop_strings_end_an_answer_as_in_evaluation(tmp_path: Path) -> None:
    model = make_model()
    _, vectors, examples = saved(tmp_path, model, "system")
    free = Decoder(Forward(model, examples), vectors).generate(examples, 24, 5)
    said = [model.tokenizer.decode(answer.ids, skip_special_tokens=True) for (answer,) in free]
    stop = [next(two for two in (text[i : i + 2] for i in range(4, len(text))) if two.isalpha()) for text in said[:2]]
    config = optimize_config(tmp_path, Path("model"), Path("data"), template=PLACEMENTS["system"], task__stop=stop)
    save_prompt(tmp_path / "stopped.safetensors", vectors, model, config)
    prompt = embedgrad_cli.load(tmp_path / "stopped.safetensors")
    assert prompt.stop_strings == stop
    for row, (answer,) in zip(
        ROWS, Decoder(Forward(model, examples), vectors).generate(examples, 24, 1, stop=stop), strict=True
    ):
        inputs = prompt.apply(model.network, model.tokenizer, user(row.query))
        ends = {"eos_token_id": sorted(model.end_ids), "pad_token_id": 0}
        output = model.network.generate(
            **inputs,
            **ends,
            max_new_tokens=24,
            do_sample=False,
            stop_strings=prompt.stop_strings,
            tokenizer=model.tokenizer,
        )
        assert [token for token in output[0].tolist() if token not in model.end_ids] == answer.ids


def test_the_users_model_stays_as_it_is(tmp_path: Path) -> None:
    model = make_model()
    prompt, _, _ = saved(tmp_path, model, "system")
    network: Any = make_network("qwen2", len(model.tokenizer))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    prompt.apply(network, model.tokenizer, user("a"))
    assert network.config._attn_implementation == "sdpa"
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in network.modules())


def test_vllm_gets_the_same_rows_without_padding(tmp_path: Path) -> None:
    model = make_model()
    prompt, vectors, examples = saved(tmp_path, model, "system")

    requests = prompt.to_vllm(model.network, model.tokenizer, [user(row.query) for row in ROWS])

    for request, example, row in zip(requests, examples, ROWS, strict=True):
        assert list(request) == ["prompt_embeds"]
        embeds = vectors.embed(torch.tensor([example.tokens]), model)[0]
        assert torch.equal(request["prompt_embeds"], embeds)
        alone = prompt.to_vllm(model.network, model.tokenizer, user(row.query))
        assert torch.equal(alone["prompt_embeds"], request["prompt_embeds"])


def test_what_a_prompt_says_of_itself(tmp_path: Path) -> None:
    prompt, vectors, _ = saved(tmp_path, make_model(), "both-sides")
    assert prompt.seed_text == SEEDS
    assert torch.equal(prompt.vectors, vectors.vectors)
    assert not prompt.vectors.requires_grad
    assert prompt.metadata["split_hash"] == "hash"
    assert "tests/qwen2" in repr(prompt)


@pytest.mark.parametrize(
    ("placement", "expected"),
    [
        ("system", "system:P|user:a|assistant:b|user:c {prompt}|"),
        ("after-query", "user:a|assistant:b|user:c {prompt}\nP|"),
        ("before-query", "user:a|assistant:b|user:P\nc {prompt}|"),
    ],
)
def test_a_longer_conversation_keeps_the_prompt_where_it_was_learnt(placement: str, expected: str) -> None:
    tokenizer = make_model().tokenizer
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}:{{ m['content'] }}|{% endfor %}"
    turns = [*user("a"), {"role": "assistant", "content": "b"}, *user("c {prompt}")]

    rendered = render_turns(turns, PLACEMENTS[placement], ["P"], tokenizer, True)

    assert rendered.text == f"{expected}assistant:"
    assert [rendered.text[a:b] for a, b in rendered.slots] == ["P"]


@pytest.mark.parametrize(
    ("placement", "expected"),
    [
        ("system", "system:P\n\nBe {prompt}.|user:\ue000 How?|"),
        ("before-query", "system:Be {prompt}.|user:P\n\ue000 How?|"),
        ("both-sides", "system:P\n\nBe {prompt}.|user:\ue000 How?\nP|"),
    ],
)
def test_a_system_turn_of_the_conversation_stands_first_or_is_joined(placement: str, expected: str) -> None:
    tokenizer = make_model().tokenizer
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}:{{ m['content'] }}|{% endfor %}"
    turns = [{"role": "system", "content": "Be {prompt}."}, *user("\ue000 How?")]
    rendered = render_turns(turns, PLACEMENTS[placement], ["P", "P"], tokenizer, True)
    assert rendered.text == f"{expected}assistant:"
    assert {rendered.text[a:b] for a, b in rendered.slots} == {"P"}


def test_a_prompt_that_cannot_stand_apart_is_not_joined(tmp_path: Path) -> None:
    """A tokenizer that rewrites its input has no text for the slot's tokens, and merges the line breaks with them."""
    from tokenizers import AddedToken, normalizers

    model = make_model()
    model.tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    model.tokenizer.add_tokens([AddedToken(".\n\n", normalized=False, special=False)])
    model.network.resize_token_embeddings(len(model.tokenizer))
    prompt, _, _ = saved(tmp_path, model, "system")
    with pytest.raises(TemplateError):
        prompt.apply(model.network, model.tokenizer, [{"role": "system", "content": "Be brief."}, *user("a")])


def test_examples_in_a_template_stand_before_the_conversation() -> None:
    tokenizer = make_model().tokenizer
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'][0] }}:{{ m['content'] }}|{% endfor %}"
    shots = [Message("user", "1+1?"), Message("assistant", "2"), Message("user", "{query} {prompt}")]
    turns = [*user("a"), {"role": "assistant", "content": "b"}, *user("c")]
    text = render_turns(turns, TemplateConfig(shots, ""), ["P"], tokenizer, True).text
    assert text == "u:1+1?|a:2|u:a|a:b|u:c P|a:"


@pytest.mark.parametrize(
    ("turns", "words"),
    [
        ([], "messages"),
        ([{"role": "user"}], "messages[0]"),
        ([{"role": "user", "content": [{"type": "text", "text": "a"}]}], "'role' and 'content'"),
        ([*user("a"), {"role": "assistant", "content": "b"}], "'assistant'"),
    ],
)
def test_conversations_without_a_place_for_the_prompt(turns: Any, words: str, tmp_path: Path) -> None:
    model = make_model()
    prompt, _, _ = saved(tmp_path, model, "system")
    with pytest.raises(TemplateError) as caught:
        prompt.apply(model.network, model.tokenizer, [turns])
    assert words in str(caught.value)


def test_a_message_alone_is_no_conversation(tmp_path: Path) -> None:
    model = make_model()
    prompt, _, _ = saved(tmp_path, model, "system")
    with pytest.raises(TemplateError, match="a message is a dict"):
        prompt.apply(model.network, model.tokenizer, user("a")[0])


def test_a_plain_text_has_a_place_for_one_turn(tmp_path: Path) -> None:
    model = make_model("gpt2", chat=False)
    prompt, _, _ = saved(tmp_path, model, "before-query")
    with pytest.raises(TemplateError):
        prompt.apply(model.network, model.tokenizer, [*user("a"), {"role": "assistant", "content": "b"}, *user("c")])


def test_a_prompt_is_not_applied_to_another_model(tmp_path: Path) -> None:
    model = make_model()
    prompt, _, _ = saved(tmp_path, model, "system")
    prompt.apply(model.network, model.tokenizer, user("a"))
    same_shape = make_network("qwen2", len(model.tokenizer))
    same_shape.get_input_embeddings().weight.mul_(1.5)
    with pytest.raises(ArtifactError):
        prompt.apply(same_shape, model.tokenizer, user("a"))
    with pytest.raises(ArtifactError, match="config"):
        prompt.apply(make_network("llama", len(model.tokenizer)), model.tokenizer, user("a"))
    in_bfloat16 = make_network("qwen2", len(model.tokenizer)).bfloat16()
    assert prompt.apply(in_bfloat16, model.tokenizer, user("a"))["inputs_embeds"].dtype == torch.bfloat16


def test_a_refused_model_changes_nothing_for_the_one_before(tmp_path: Path) -> None:
    model, other = make_model(), make_model(chat=True)
    prompt, _, _ = saved(tmp_path, model, "system")
    before = prompt.apply(model.network, model.tokenizer, user("a"))["inputs_embeds"]
    other.tokenizer.chat_template = "{{ messages | length }}" + other.tokenizer.chat_template
    with pytest.raises(ArtifactError, match="tokenizer"):
        prompt.apply(other.network, other.tokenizer, user("a"))
    assert torch.equal(prompt.apply(model.network, model.tokenizer, user("a"))["inputs_embeds"], before)


def test_the_import_is_light(tmp_path: Path) -> None:
    code = "import sys, embedgrad_cli; print(sorted({'torch', 'transformers', 'yaml', 'hydra'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert (Path(embedgrad_cli.__file__).parent / "py.typed").exists()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a short run on the embedded model, where the documentation has it."""
    folder = tmp_path_factory.mktemp("demo")
    short = ["train.steps=4", "train.eval_every=4", "task.split.num_validation=8", "task.split.num_test=24"]
    run = f"output_dir={folder}/outputs/demo"
    assert cli.main(["optimize", *short, "task.max_new_tokens=64", "device=cpu", "log_level=warning", run]) == 0
    return folder


@pytest.mark.slow
def test_the_documentation_runs_and_answers_as_evaluate_does(
    demo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    monkeypatch.chdir(demo)
    blocks = FENCE.findall((DOCS / "python.md").read_text())
    assert len(blocks) == 6
    namespace: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), namespace)
    assert len(namespace["answers"]) == len(namespace["requests"]) == 2
    assert "embedding rows" in capsys.readouterr().out

    rows = [json.loads(line) for line in Path("outputs/demo/samples.jsonl").read_text().splitlines()]
    optimized = [row for row in rows if row["arm"] == "optimized"]
    assert len(optimized) == 24
    folder = resolve("embedded:tiny")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    prompt = embedgrad_cli.load("outputs/demo/prompt.safetensors")
    inputs = prompt.apply(model, tokenizer, [user(row["query"]) for row in optimized])
    output = model.generate(**inputs, max_new_tokens=64, do_sample=False)
    answers = tokenizer.batch_decode(output, skip_special_tokens=True)
    assert answers == [row["output"] for row in optimized]


def test_load_refuses_what_is_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"nothing\.safetensors"):
        embedgrad_cli.load(tmp_path / "nothing.safetensors")
