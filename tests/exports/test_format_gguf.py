"""`format=gguf`: one file for llama.cpp, and a Modelfile for Ollama. `make test-llamacpp` has llama.cpp read it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader, GGUFValueType, TokenType
from safetensors.torch import load_file
from tests.conftest import make_tokenizer
from tests.exports.conftest import QUERIES, Case, make_case
from tests.exports.test_refusals import assert_refused
from tokenizers import Regex, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from embedgrad_cli.exports import gguf
from embedgrad_cli.exports.llamacpp import modelfile
from embedgrad_cli.exports.llamacpp import tokenizer as gguf_tokenizer

Capture = pytest.CaptureFixture[str]
QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
QWEN2 += r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def exported(case: Case, tmp_path: Path) -> tuple[GGUFReader, Path]:
    """The file, and the folder of `format=model` beside it."""
    assert case.export("gguf", tmp_path / "out") == 0
    assert case.export("model", tmp_path / "folder") == 0
    return GGUFReader(tmp_path / "out/model.gguf"), tmp_path / "folder"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[GGUFReader, Path]:
    """The file of one plain case, and the folder of `format=model`."""
    folder = tmp_path_factory.mktemp("gguf")
    return exported(make_case(folder), folder)


def content(reader: GGUFReader, key: str) -> Any:
    return reader.fields[f"tokenizer.{key}"].contents()


@pytest.mark.parametrize(
    ("architecture", "dtype"), [("qwen2", torch.float32), ("llama", torch.bfloat16), ("qwen3", torch.float32)]
)
def test_transformers_reads_the_folders_numbers_out_of_the_file(
    architecture: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    """Bit for bit, by a reader that is not ours: names, and the order of a Llama's rows, are llama.cpp's."""
    reader, folder = exported(make_case(tmp_path, architecture, dtype=dtype, spare_rows=9), tmp_path)
    config = AutoConfig.from_pretrained(folder)  # its reader leaves out the size of Qwen3's heads
    settings: dict[str, Any] = {"gguf_file": "model.gguf", "dtype": torch.float32, "config": config}
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "out", **settings).state_dict()
    expected = load_file(folder / "model.safetensors")
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name].float())] == []
    kinds = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors if len(tensor.shape) > 1}
    assert set(kinds.values()) == {"F32" if dtype == torch.float32 else "BF16"}


def test_the_file_answers_like_embedgrad(tmp_path: Path) -> None:
    case = make_case(tmp_path, "llama", "both-sides", tied=False)
    exported(case, tmp_path)
    settings: dict[str, Any] = {"gguf_file": "model.gguf", "dtype": torch.float32}
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", **settings)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "folder")
    for query, logits in zip(QUERIES, case.logits(), strict=True):
        messages = [{"role": "user", "content": query}]
        ids = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )["input_ids"]
        found = model(ids).logits[0, -1]
        torch.testing.assert_close(found[: len(logits)], logits, rtol=1e-4, atol=1e-4)


def test_the_prompts_tokens_are_read_and_never_answered(written: tuple[GGUFReader, Path]) -> None:
    """Control tokens, which llama.cpp is told to suppress."""
    reader, folder = written
    tokenizer = AutoTokenizer.from_pretrained(folder)
    kinds = [TokenType(kind) for kind in content(reader, "ggml.token_type")]
    texts = content(reader, "ggml.tokens")
    ids = list(json.loads((folder / "embedgrad.json").read_text())["tokens"].values())
    assert {kinds[token] for token in ids} == {TokenType.CONTROL}
    assert content(reader, gguf_tokenizer.SUPPRESSED.removeprefix("tokenizer.")) == ids
    field = reader.fields[gguf_tokenizer.SUPPRESSED]
    assert field.types == [GGUFValueType.ARRAY, GGUFValueType.INT32]  # llama.cpp refuses a file with other ones
    assert len(texts) == len(set(texts)) == len(kinds) == reader.tensors[0].shape[1]
    assert all(texts[token] == text for text, token in tokenizer.get_vocab().items())


def test_what_the_tokenizer_is(written: tuple[GGUFReader, Path]) -> None:
    reader, folder = written
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert content(reader, "chat_template") == tokenizer.chat_template
    assert content(reader, "ggml.pre") == "qwen2"  # as transformers splits text for this kind of model
    assert content(reader, "ggml.eos_token_id") == tokenizer.eos_token_id
    assert content(reader, "ggml.add_bos_token") is False
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    assert content(reader, "ggml.merges") == [" ".join(pair) for pair in merges]


def splitting(*steps: Any) -> Any:
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(list(steps))
    return tokenizer


BYTES, WORDS = (pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=uses) for uses in (False, True))


@pytest.mark.parametrize(
    ("steps", "name"),
    [
        ([WORDS], "gpt-2"),
        ([pre_tokenizers.Digits(True), WORDS], "smollm"),
        ([pre_tokenizers.Split(Regex(QWEN2), "isolated"), BYTES], "qwen2"),
    ],
)
def test_how_text_is_split_has_llama_cpps_name(steps: Sequence[Any], name: str) -> None:
    assert gguf_tokenizer.name_of(splitting(*steps)) == name


@pytest.mark.parametrize("placement", ["before-query", "both-sides"])
def test_ollamas_template_renders_longer_conversations_too(placement: str, tmp_path: Path) -> None:
    """Its pieces, in the order of its actions; Go itself is not run here."""
    _, folder = exported(make_case(tmp_path, placement=placement), tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    pieces = modelfile.pieces_of(tokenizer)
    assert pieces is not None
    turns = [("user", "How many {{ apples }}?"), ("assistant", "7"), ("user", "And\npears?"), ("assistant", "8")]
    for conversation in ([*turns, *turns, ("user", "x")], [("system", "Be brief."), ("user", "x")], [("user", "x")]):
        messages = [{"role": role, "content": text} for role, text in conversation]
        expected = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert pieces.render(conversation) == expected
    written = (tmp_path / "out/Modelfile").read_text()
    assert written.count('"""') == 2 + 2 * written.count("PARAMETER stop")
    assert f'TEMPLATE """{pieces.template()}"""' in written
    assert 'PARAMETER stop """<|im_end|>"""' in written


def test_a_chat_template_for_one_turn(tmp_path: Path) -> None:
    """Of a model without one of its own: the Modelfile takes the user's last turn alone."""
    case = make_case(tmp_path, chat=False)
    assert case.export("gguf", tmp_path / "out") == 0
    written = (tmp_path / "out/Modelfile").read_text()
    assert "{{ .Content }}" in written
    assert "assistant" not in written


def test_a_template_for_ollama_may_say_what_its_own_parts_are_called() -> None:
    pieces = modelfile.Pieces("SOLE .END: ", "END")
    assert '{{ "SOLE .END: " }}{{ .Content }}{{ "END" }}' in pieces.template()


@pytest.mark.parametrize("architecture", ["mistral"])
def test_an_architecture_that_was_not_tried(architecture: str, tmp_path: Path, capsys: Capture) -> None:
    case = make_case(tmp_path, architecture)
    assert_refused(case.export("gguf", tmp_path / "out"), tmp_path, capsys.readouterr().err, architecture)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("hidden_act", "gelu"), ("rope_parameters", {"rope_type": "linear", "factor": 2.0, "rope_theta": 10_000.0})],
)
def test_a_network_that_computes_otherwise(setting: str, value: Any, tmp_path: Path, capsys: Capture) -> None:
    case = make_case(tmp_path, "llama")
    settings = json.loads((case.folder / "config.json").read_text())
    (case.folder / "config.json").write_text(json.dumps({**settings, setting: value}))
    code = case.export("gguf", tmp_path / "out")
    assert_refused(code, tmp_path, capsys.readouterr().err, "format=model")


@pytest.mark.parametrize("step", [pre_tokenizers.Metaspace(), pre_tokenizers.Digits(False)])
def test_a_tokenizer_without_a_name_in_llama_cpp(step: Any, tmp_path: Path, capsys: Capture) -> None:
    case = make_case(tmp_path, "llama", tokenizer=splitting(step, BYTES))
    assert_refused(case.export("gguf", tmp_path / "out"), tmp_path, capsys.readouterr().err, "gpt-2, smollm, qwen2")


def test_without_the_package(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(gguf, "find_spec", lambda name: None)
    assert_refused(case.export("gguf", tmp_path / "out"), tmp_path, capsys.readouterr().err, "'embedgrad[gguf]'")


def test_without_room(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(0, 0, 1000))  # type: ignore[attr-defined]
    assert_refused(case.export("gguf", tmp_path / "out"), tmp_path, capsys.readouterr().err, "output_dir")


def test_a_template_hears_nothing_but_what_it_was_told_in_training(tmp_path: Path) -> None:
    """llama.cpp's server says to every template that it may think, and the day, and would render others then."""
    thinks = "{% if enable_thinking is defined %}{{ 'think' if enable_thinking else 'answer' }}{% endif %}"
    thinks += "{% if date_string is defined %}{{ date_string }}{% endif %}"
    rendered = {}
    for told in (None, {"enable_thinking": False}):
        folder = tmp_path / ("told" if told else "untold")
        folder.mkdir()
        tokenizer = make_tokenizer()
        tokenizer.chat_template = thinks + tokenizer.chat_template
        assert make_case(folder, tokenizer=tokenizer, told=told).export("gguf", folder / "out") == 0
        tokenizer.chat_template = content(GGUFReader(folder / "out/model.gguf"), "chat_template")
        messages = [{"role": "user", "content": "x"}]
        unasked: dict[str, Any] = {"enable_thinking": True, "date_string": "28 Nov 2026"}
        rendered[told is None] = tokenizer.apply_chat_template(messages, tokenize=False, **unasked)
    assert rendered[True].startswith("<|im_start|>")
    assert rendered[False].startswith("answer<|im_start|>")
