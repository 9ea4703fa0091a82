"""`format=gguf` of a GGUF file: all but its tables is copied. `make test-llamacpp` has llama.cpp read such a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader, TokenType
from gguf.quants import dequantize
from tests.exports.conftest import QUERIES, Case, ids_of, make_case
from tests.exports.test_refusals import assert_refused
from transformers import AutoModelForCausalLM, AutoTokenizer

from embedgrad_cli.exports.llamacpp.weights import OUTPUT, TABLE

Capture = pytest.CaptureFixture[str]
TOKENIZER = "tokenizer.ggml."
NEW = {"GGUF.tensor_count", "GGUF.kv_count", "tokenizer.chat_template", TOKENIZER + "suppress_tokens"}
LISTS = {TOKENIZER + "tokens", TOKENIZER + "token_type"}


@dataclass
class Copied:
    case: Case
    folder: Path
    source: GGUFReader
    written: GGUFReader

    def pair(self, name: str) -> tuple[Any, Any]:
        return tuple(next((t for t in one.tensors if t.name == name), None) for one in (self.source, self.written))  # type: ignore[return-value]

    def field(self, key: str) -> Any:
        return self.written.fields[key].contents()


@pytest.fixture(scope="module", params=["qwen2-Q8_0", "llama-Q4_0", "qwen2-F16", "llama-F32"])
def copied(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Copied:
    folder = tmp_path_factory.mktemp("copied")
    architecture, kind = request.param.split("-")
    case = make_case(folder, architecture, "both-sides", tied=architecture == "qwen2", spare_rows=3, gguf=kind)
    assert case.export("gguf", folder / "out") == 0
    source, written = GGUFReader(case.folder / "tiny.gguf"), GGUFReader(folder / "out/model.gguf")
    return Copied(case, folder, source, written)


def test_every_other_tensor_has_the_sources_bytes(copied: Copied) -> None:
    others = [tensor.name for tensor in copied.source.tensors if tensor.name not in (TABLE, OUTPUT)]
    assert [t.name for t in copied.written.tensors if t.name not in (TABLE, OUTPUT)] == others
    for name in others:
        theirs, ours = copied.pair(name)
        assert ours.tensor_type == theirs.tensor_type
        assert list(ours.shape) == list(theirs.shape)
        assert ours.data.tobytes() == theirs.data.tobytes(), name


def test_what_the_file_says_is_the_sources(copied: Copied) -> None:
    architecture = copied.field("general.architecture")
    for key, field in copied.source.fields.items():
        if key not in NEW | LISTS | {f"{architecture}.vocab_size"}:
            assert copied.written.fields[key].types == field.types
            assert copied.field(key) == field.contents(), key
    num_rows = len(copied.field(TOKENIZER + "tokens"))
    assert copied.field(f"{architecture}.vocab_size") == num_rows == copied.pair(TABLE)[1].data.shape[0]


def test_the_prompts_tokens_come_behind_those_of_the_file(copied: Copied) -> None:
    ids = copied.field(TOKENIZER + "suppress_tokens")
    for key in LISTS:
        theirs, ours = copied.source.fields[key].contents(), copied.field(key)
        assert [one for token, one in enumerate(ours) if token not in ids and token < len(theirs)] == [
            one for token, one in enumerate(theirs) if token not in ids
        ]
    kinds = copied.field(TOKENIZER + "token_type")
    assert {TokenType(kinds[token]) for token in ids} == {TokenType.CONTROL}
    assert len(ids) == copied.case.prompt.slots.num_tokens


def test_the_table_is_unpacked_and_holds_the_vectors(copied: Copied) -> None:
    theirs, ours = copied.pair(TABLE)
    assert ours.tensor_type.name == ("F32" if theirs.tensor_type.name == "F32" else "F16")
    table, ids = np.asarray(ours.data, np.float32), copied.field(TOKENIZER + "suppress_tokens")
    vectors = copied.case.prompt.vectors.detach().numpy()
    np.testing.assert_allclose(table[ids], vectors, rtol=2**-11, atol=1e-7)
    kept = [row for row in range(len(theirs.data)) if row not in ids]
    unpacked = dequantize(theirs.data, theirs.tensor_type)[kept]
    np.testing.assert_allclose(table[kept], unpacked, rtol=2**-11, atol=1e-7)


def test_output_rows_stay_packed(copied: Copied) -> None:
    """And those of the tokens that are never answered cannot be told from one that stands before them."""
    table, ids = copied.pair(TABLE)[0], copied.field(TOKENIZER + "suppress_tokens")
    theirs, ours = copied.pair(OUTPUT)
    theirs = theirs or table
    assert ours.tensor_type == theirs.tensor_type
    kept = [row for row in range(len(theirs.data)) if row not in ids]
    assert ours.data[kept].tobytes() == theirs.data[kept].tobytes()
    if theirs.tensor_type.name.startswith("Q"):
        before = [row.tobytes() for row in ours.data[: min(ids)]]
        assert {ours.data[token].tobytes() for token in ids} <= set(before)


def test_the_file_answers_like_embedgrad(copied: Copied) -> None:
    settings: dict[str, Any] = {"gguf_file": "model.gguf", "dtype": torch.float32}
    model = AutoModelForCausalLM.from_pretrained(copied.folder / "out", **settings)
    tokenizer = AutoTokenizer.from_pretrained(copied.folder / "out", gguf_file="model.gguf")
    ids = copied.field(TOKENIZER + "suppress_tokens")
    for query, logits in zip(QUERIES, copied.case.logits(), strict=True):
        found = model(ids_of(tokenizer, query)).logits[0, -1]
        kept = [token for token in range(len(logits)) if token not in ids]
        torch.testing.assert_close(found[kept], logits[kept], rtol=5e-3, atol=5e-3)
        assert int(found.argmax()) not in ids


def test_what_is_quantised_is_not_quantised_again(tmp_path: Path, capsys: Capture) -> None:
    case = make_case(tmp_path, gguf="Q8_0")
    code = case.export("gguf", tmp_path / "out", "quantize=Q4_K_M", "quantizer=/bin/true")
    assert_refused(code, tmp_path, capsys.readouterr().err, "quantize=Q4_K_M")
