"""`format=model`: an exported folder answers like embedgrad itself, or is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests.conftest import PLACEMENTS, make_tokenizer
from tests.exports.conftest import NEW_TOKENS, QUERIES, Case, ids_of, make_case, merging_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from embedgrad_cli.config.schema import ModelConfig, TemplateConfig
from embedgrad_cli.core.model.load import load_model

TIED = {"qwen2": True, "llama": False, "gemma": True, "gemma2": True, "gpt2": True, "gpt_neox": False, "gemma3": True}


def load(folder: Path) -> tuple:
    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto"), AutoTokenizer.from_pretrained(folder)


def assert_same(case: Case, folder: Path, tolerance: float = 1e-5) -> None:
    """Logits of the old vocabulary and greedy tokens equal embedgrad's own."""
    network, tokenizer = load(folder)
    size = case.model.network.get_input_embeddings().weight.shape[0]
    for query, example, logits, answer in zip(QUERIES, case.examples, case.logits(), case.answers(), strict=True):
        ids = ids_of(tokenizer, query)
        assert ids.shape[1] == len(example.tokens)
        actual = network(ids).logits[0, -1]
        torch.testing.assert_close(actual[:size], logits, rtol=tolerance, atol=tolerance)
        output = network.generate(ids, do_sample=False, max_new_tokens=NEW_TOKENS, pad_token_id=0)
        tokens = output[0, ids.shape[1] :].tolist()
        ends = case.model.end_ids
        assert tokens[: next((i for i, t in enumerate(tokens) if t in ends), len(tokens))] == answer


@pytest.mark.parametrize(
    ("architecture", "placement"),
    [
        *(("qwen2", placement) for placement in PLACEMENTS),
        *((architecture, "both-sides") for architecture in TIED if architecture != "qwen2"),
        ("gpt2", "before-query"),
        ("llama", "after-query"),
        ("gemma2", "system"),
    ],
)
def test_an_exported_model_answers_like_embedgrad(architecture: str, placement: str, tmp_path: Path) -> None:
    case = make_case(tmp_path, architecture, placement, tied=TIED[architecture])
    assert case.export("model", tmp_path / "out") == 0
    assert_same(case, tmp_path / "out")


def test_tied_embeddings_are_separated_and_the_rest_is_the_same(tmp_path: Path) -> None:
    case = make_case(tmp_path, "gemma", tied=True)
    assert case.export("model", tmp_path / "out") == 0
    with (
        safe_open(tmp_path / "base/model.safetensors", "pt") as old,
        safe_open(tmp_path / "out/model.safetensors", "pt") as new,
    ):
        assert set(new.keys()) - set(old.keys()) == {"lm_head.weight"}
        rows = old.get_tensor("model.embed_tokens.weight")
        for name in list(old.keys()):
            assert torch.equal(new.get_tensor(name)[: len(old.get_tensor(name))], old.get_tensor(name))
        head = new.get_tensor("lm_head.weight")
        assert torch.equal(head[: len(rows)], rows)
        torch.testing.assert_close(head[len(rows) :], rows.mean(dim=0).expand(len(head) - len(rows), -1))
        # Gemma multiplies rows with √hidden_size.
        vectors = new.get_tensor("model.embed_tokens.weight")[len(rows) :] * 32**0.5
        torch.testing.assert_close(vectors, case.prompt.vectors)
    network, _ = load(tmp_path / "out")
    assert network.lm_head.weight.data_ptr() != network.get_input_embeddings().weight.data_ptr()


def test_an_added_token_is_never_the_likeliest_even_where_all_logits_are_negative(tmp_path: Path) -> None:
    case = make_case(tmp_path, "gpt2", tied=True)
    size = len(case.model.network.get_input_embeddings().weight)
    move_logits(case.model.network, -1)
    case.model.network.save_pretrained(tmp_path / "base")
    artifact = make_artifact_again(case)
    assert artifact.export("model", tmp_path / "out") == 0
    network, tokenizer = load(tmp_path / "out")
    for query in QUERIES:
        logits = network(ids_of(tokenizer, query)).logits[0, -1]
        old, added = logits[:size], logits[size:]
        assert len(added) == case.prompt.slots.num_tokens
        assert old.max() < 0  # rows of zeros would win here
        assert added.max() < old.max()
        assert (logits.softmax(-1)[size:] < 1 / size).all()


def make_artifact_again(case: Case) -> Case:
    """The artifact for weights that were changed after it was made."""
    from embedgrad_cli.core.prompt.artifact import load_artifact, save_artifact
    from embedgrad_cli.core.prompt.soft_prompt import SoftPrompt

    prompt = SoftPrompt(
        case.prompt.slots, SoftPrompt.from_seed(case.prompt.slots, case.model).seed, case.prompt.vectors
    )
    save_artifact(case.artifact, prompt, load_artifact(case.artifact).metadata)
    return case


def test_generation_suppresses_the_tokens_and_ends_where_training_did(case: Case, tmp_path: Path) -> None:
    assert case.export("model", tmp_path / "out") == 0
    generation = json.loads((tmp_path / "out/generation_config.json").read_text())
    _, tokenizer = load(tmp_path / "out")
    added = [id for token, id in tokenizer.get_vocab().items() if token.startswith("<|embedgrad_")]
    assert generation["suppress_tokens"] == sorted(added)
    assert generation["eos_token_id"] == [tokenizer.convert_tokens_to_ids("<|im_end|>")]
    assert len(added) == case.prompt.slots.num_tokens
    assert tokenizer.decode(added, skip_special_tokens=True) == ""


@pytest.mark.parametrize("after", ["\n<|im_end|>", " <|im_end|>", "<|im_end|>\n", "<|finish|>"])
def test_answers_end_at_the_token_that_ends_a_turn(after: str, tmp_path: Path) -> None:
    """Not at the line break or blank that a chat template writes in front of it."""
    tokenizer = make_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace("<|im_end|>", after)
    case = make_case(tmp_path, tokenizer=tokenizer)
    for format, file, key in (
        ("model", "generation_config.json", "eos_token_id"),
        ("embeds", "request.json", "stop_token_ids"),
    ):
        assert case.export(format, tmp_path / format) == 0
        written = json.loads((tmp_path / format / file).read_text())
        assert written[key] == [tokenizer.convert_tokens_to_ids("<|im_end|>")]
    assert_same(case, tmp_path / "model")


def test_a_table_with_spare_rows_does_not_grow(tmp_path: Path) -> None:
    case = make_case(tmp_path, "qwen2", tied=False, spare_rows=16)
    assert case.export("model", tmp_path / "out") == 0
    assert load(tmp_path / "out")[0].config.vocab_size == case.model.network.config.vocab_size
    network, tokenizer = load(tmp_path / "out")
    for query, logits in zip(QUERIES, case.logits(), strict=True):
        size = len(make_tokenizer())
        actual = network(ids_of(tokenizer, query)).logits[0, -1]
        torch.testing.assert_close(actual[:size], logits[:size], rtol=1e-5, atol=1e-5)


def test_half_precision_keeps_its_type_and_rounds_like_embedgrad(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = make_case(tmp_path, "qwen2", tied=False, dtype=torch.bfloat16)
    assert case.export("model", tmp_path / "out") == 0
    assert "BF16 (rounding moves the vectors by at most" in capsys.readouterr().out
    network, tokenizer = load(tmp_path / "out")
    assert network.dtype == torch.bfloat16
    ids = ids_of(tokenizer, QUERIES[0])
    forward_rows = case.prompt.vectors.to(torch.bfloat16)
    assert torch.equal(network.get_input_embeddings().weight[-len(forward_rows) :], forward_rows)
    torch.testing.assert_close(network(ids).logits[0, -1, : len(make_tokenizer())], case.logits()[0], rtol=0, atol=0.05)


@pytest.mark.parametrize("setting", ["weights=link", "weights=copy", "export.weights=copy"])
def test_shards_without_an_embedding_are_linked_or_copied(setting: str, tmp_path: Path) -> None:
    case = make_case(tmp_path, "llama", tied=False, max_shard_size="40KB")
    assert case.export("model", tmp_path / "out", setting) == 0
    shards = sorted(path.name for path in (tmp_path / "base").glob("*.safetensors"))
    assert len(shards) > 2
    same = [name for name in shards if (tmp_path / "out" / name).samefile(tmp_path / "base" / name)]
    index = json.loads((tmp_path / "out/model.safetensors.index.json").read_text())
    changed = {index["weight_map"][name] for name in ("model.embed_tokens.weight", "lm_head.weight")}
    assert set(same) == (set(shards) - changed if setting == "weights=link" else set())
    assert_same(case, tmp_path / "out")


def test_the_index_of_a_tied_model_names_the_new_head(tmp_path: Path) -> None:
    case = make_case(tmp_path, "gemma", tied=True, max_shard_size="40KB")
    assert case.export("model", tmp_path / "out") == 0
    index = json.loads((tmp_path / "out/model.safetensors.index.json").read_text())
    assert "lm_head.weight" in index["weight_map"]
    stored = sum(
        sum(end - begin for begin, end in [tensor["data_offsets"]])
        for file in (tmp_path / "out").glob("*.safetensors")
        for tensor in [t for name, t in header(file).items() if name != "__metadata__"]
    )
    assert index["metadata"]["total_size"] == stored
    assert_same(case, tmp_path / "out")


def header(file: Path) -> dict:
    raw = file.read_bytes()
    return json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])


@pytest.mark.parametrize("placement", ["before-query", "both-sides"])
def test_a_token_that_straddles_the_prompt_s_edge_is_not_doubled(placement: str, tmp_path: Path) -> None:
    case = make_case(tmp_path, "qwen2", placement, tied=False, tokenizer=merging_tokenizer())
    if placement == "before-query":
        assert case.model.tokenizer.decode([case.prompt.slots.ids[0][-1]]) == ".\n"
    assert case.export("model", tmp_path / "out") == 0
    assert_same(case, tmp_path / "out")


def test_a_model_without_chat_template_gets_one_for_the_plain_text(tmp_path: Path) -> None:
    case = make_case(tmp_path, "gpt2", "after-query", chat=False)
    assert case.export("model", tmp_path / "out") == 0
    assert_same(case, tmp_path / "out")
    _, tokenizer = load(tmp_path / "out")
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    with pytest.raises(jinja2.TemplateError, match="turn"):
        tokenizer.apply_chat_template(turns)


CUES = {
    "before": TemplateConfig([], "{prompt}\n{query}\nAnswer: "),
    "after": TemplateConfig([], "Question: {query}\n{prompt} "),
}


@pytest.mark.parametrize("placement", CUES)
def test_a_plain_text_that_ends_in_a_blank(placement: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blank is the answer's: conversations end before it, in training and in the exported chat template."""
    monkeypatch.setitem(PLACEMENTS, placement, CUES[placement])
    case = make_case(tmp_path, "gpt2", placement, chat=False)
    assert case.export("model", tmp_path / "out") == 0
    assert_same(case, tmp_path / "out")
    assert_no_blank(case, tmp_path / "out")


def test_a_chat_template_that_ends_in_a_blank(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace("assistant\n", "assistant: ")
    case = make_case(tmp_path, placement="both-sides", tokenizer=tokenizer)
    assert case.export("model", tmp_path / "out") == 0
    assert_same(case, tmp_path / "out")
    assert_no_blank(case, tmp_path / "out")
    exported = AutoTokenizer.from_pretrained(tmp_path / "out")
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b "}]
    assert exported.apply_chat_template(turns, tokenize=False).endswith("b <|im_end|>\n")


def assert_no_blank(case: Case, folder: Path) -> None:
    for example in case.examples:
        last = example.tokens[-1]
        text = case.model.tokenizer.decode([last if last >= 0 else case.prompt.slots.flat_ids[-1 - last]])
        assert text == text.rstrip()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    turns = [{"role": "user", "content": QUERIES[0]}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert text == text.rstrip()


def test_exporting_an_export_is_refused(case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert case.export("model", tmp_path / "out") == 0
    assert case.export("model", tmp_path / "again", f"model.path={tmp_path}/out") == 2
    assert f"artifact={case.artifact} " in capsys.readouterr().err
    assert not (tmp_path / "again").exists()


def test_a_model_of_the_hub_is_linked_from_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache holds blobs, and symbolic links to them; the export holds the files themselves."""
    from huggingface_hub import constants

    case = make_case(tmp_path, "llama", tied=False, max_shard_size="40KB")
    cache = tmp_path / "cache/models--someone--tiny"
    snapshot = cache / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (cache / "refs").mkdir()
    (cache / "refs/main").write_text("a" * 40)
    case.folder.rename(cache / "blobs")
    for blob in (cache / "blobs").iterdir():
        (snapshot / blob.name).symlink_to(blob)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert case.export("model", tmp_path / "out", "model.path=someone/tiny") == 0
    shards = [path for path in (tmp_path / "out").glob("*.safetensors") if path.stat().st_nlink > 1]
    assert shards
    assert not any(path.is_symlink() for path in (tmp_path / "out").iterdir())
    assert_same(case, tmp_path / "out")


def test_a_hybrid_model_gives_the_same_logits(tmp_path: Path) -> None:
    """Nemotron-H's own files call its embeddings `backbone.embeddings`."""
    case = make_case(tmp_path, "nemotron_h", tied=False)
    assert case.export("model", tmp_path / "out") == 0
    network, tokenizer = load(tmp_path / "out")
    for query, logits in zip(QUERIES, case.logits(), strict=True):
        actual = network(ids_of(tokenizer, query)).logits[0, -1, : len(logits)]
        torch.testing.assert_close(actual, logits, rtol=1e-5, atol=1e-5)


def test_a_model_of_several_parts_keeps_them(tmp_path: Path) -> None:
    """The number of rows stands in the part for text, and what prepares images comes along."""
    case = make_case(tmp_path, "gemma3", tied=True)
    (case.folder / "preprocessor_config.json").write_text("{}")
    assert case.export("model", tmp_path / "out") == 0
    old, new = (load_file(tmp_path / name / "model.safetensors") for name in ("base", "out"))
    assert all(torch.equal(new[name], tensor) for name, tensor in old.items() if "embed_tokens" not in name)
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["text_config"]["vocab_size"] == len(load(tmp_path / "out")[1])
    assert "vocab_size" not in config
    assert (tmp_path / "out/preprocessor_config.json").is_file()


def test_an_index_of_an_older_save_is_left_alone(tmp_path: Path) -> None:
    case = make_case(tmp_path, "llama", tied=False, max_shard_size="40KB")
    whole = {name: tensor.clone() for name, tensor in case.model.network.state_dict().items()}
    for shard in case.folder.glob("*.safetensors"):
        save_file({name: tensor + 1 for name, tensor in load_file(shard).items()}, shard, {"format": "pt"})
    save_file(whole, case.folder / "model.safetensors", {"format": "pt"})
    assert case.export("model", tmp_path / "out") == 0
    assert [path.name for path in (tmp_path / "out").glob("*.safetensors*")] == ["model.safetensors"]
    assert_same(case, tmp_path / "out")


def move_logits(network: Any, sign: int) -> None:
    """Move the last hidden state along (or against) every output row at once, as GPT-2's own is against them."""
    table = network.get_input_embeddings().weight.double()
    direction = torch.linalg.lstsq(table, -torch.ones(len(table), 1, dtype=table.dtype)).solution[:, 0]
    table -= torch.outer(table @ direction + 1, direction) / direction.square().sum()
    network.get_input_embeddings().weight.copy_(table)
    network.transformer.ln_f.bias.add_(-sign * 100 * direction)


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("missing_rows", [0, 1, 5])
def test_a_token_without_a_row_is_never_the_likeliest(
    missing_rows: int, dtype: torch.dtype, sign: int, tmp_path: Path
) -> None:
    """A pad token that was added to the tokenizer alone, as is usual with GPT-2, comes before the prompt's tokens."""
    tokenizer = make_tokenizer()
    size = len(tokenizer)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.add_tokens([f"<{number}>" for number in range(4)])
    added = len(tokenizer) - size
    case = make_case(tmp_path, "gpt2", tied=True, tokenizer=tokenizer, spare_rows=-missing_rows)
    move_logits(case.model.network, sign)
    case.model.network.to(dtype).save_pretrained(tmp_path / "base")
    make_artifact_again(case)
    assert case.export("model", tmp_path / "out") == 0
    network, tokenizer = load(tmp_path / "out")
    rows = size + added - missing_rows
    for query in QUERIES:
        logits = network(ids_of(tokenizer, query)).logits[0].float()
        assert len(logits[0]) == len(tokenizer) == rows + missing_rows + case.prompt.slots.num_tokens
        assert (logits[-1, :rows].sign() == sign).all()
        assert (logits.argmax(-1) < rows).all()  # without suppress_tokens, which engines may not read
    generation = json.loads((tmp_path / "out/generation_config.json").read_text())
    assert generation["suppress_tokens"] == list(range(rows, len(tokenizer)))


@pytest.mark.parametrize(
    ("names", "added"),
    [
        (["lm_head"], 0.0),
        (["model.embed_tokens"], 0.0),
        (["lm_head", "model.embed_tokens"], 0.0),
        (["lm_head", "model.embed_tokens"], 0.1),
    ],
)
def test_tied_rows_under_any_names(names: list[str], added: float, tmp_path: Path) -> None:
    """What the config calls tied may be stored under either name, or twice; and two different tables are not tied."""
    case = make_case(tmp_path, "gemma", tied=True)
    file = case.folder / "model.safetensors"
    tensors = load_file(file)
    rows = tensors.pop("model.embed_tokens.weight")
    tensors |= {f"{name}.weight": rows.clone() for name in names}
    tensors[f"{names[0]}.weight"] += added * torch.randn(rows.shape, generator=torch.Generator().manual_seed(1))
    save_file(tensors, file, {"format": "pt"})
    config = ModelConfig(str(case.folder), None, "auto", "auto", False)
    case = replace(case, model=load_model(config, torch.device("cpu")))
    assert case.export("model", tmp_path / "out") == 0
    assert_same(case, tmp_path / "out")


def test_names_without_the_network_s_prefix(tmp_path: Path) -> None:
    """GPT-2's own files say `wte.weight`, its network `transformer.wte.weight`."""
    case = make_case(tmp_path, "gpt2", tied=True)
    file = case.folder / "model.safetensors"
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in load_file(file).items()}
    save_file(tensors, file, {"format": "pt"})
    assert case.export("model", tmp_path / "out") == 0
    assert_same(case, tmp_path / "out")
