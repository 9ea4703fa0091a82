"""Artifacts: the header's length and JSON, dtypes, shapes, offsets, huge counts, repeated keys, deep nesting."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from fuzz.case import Case
from fuzz.mutations import NUMBERS, as_bytes, as_json, cut_bytes, edited, raw_values

FILE = "prompt.safetensors"
LINES = [
    ("inspect", FILE),
    ("inspect", FILE, "--format", "json"),
    ("evaluate", f"artifact={FILE}", "output_dir=out"),
    ("evaluate", f"arms=[seed,{FILE}]", "output_dir=out"),
    ("export", f"artifact={FILE}", "format=embeds", "output_dir=out"),
    ("export", f"artifact={FILE}", "format=hub", "output_dir=out"),
]
DTYPES = ["F64", "F16", "BF16", "I8", "U8", "BOOL", "F8_E4M3", "F32", "f32", "", "X", None, 4]


def cases(base: Path) -> SearchStrategy[Case]:
    """Cases of the artifact of a run."""
    content = base.joinpath(FILE).read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    return st.builds(
        _case,
        _bytes(content) | _headers(header, data) | _metadata(header, data) | _metadata(header, data),
        st.sampled_from(LINES),
    )


def _case(content: bytes, words: tuple[str, ...]) -> Case:
    # An evaluation of an artifact that is whole would take seconds: its command line is checked and no more.
    return Case({FILE: content}, words, names=(FILE,), runs=words[0] != "evaluate")


def _bytes(content: bytes) -> SearchStrategy[bytes]:
    lengths = st.sampled_from([0, 1, 2**31, 2**63, 2**64 - 1, len(content), 100_000_000]) | st.integers(0, 2**64 - 1)
    return cut_bytes(content) | lengths.map(lambda length: struct.pack("<Q", length) + content[8:])


@st.composite
def _headers(draw: DrawFn, header: Any, data: bytes) -> bytes:
    """Edits of the tensors' entries."""
    header = json.loads(json.dumps(header))
    tensors = [name for name in header if name != "__metadata__"]
    entry = header[draw(st.sampled_from(tensors))]
    match draw(st.sampled_from(["dtype", "shape", "offsets", "any", "swap", "twice"])):
        case "dtype":
            entry["dtype"] = draw(st.sampled_from(DTYPES))
        case "shape":
            entry["shape"] = draw(st.lists(st.sampled_from(NUMBERS) | st.integers(-2, 200), max_size=4))
        case "offsets":
            entry["data_offsets"] = draw(st.lists(st.sampled_from(NUMBERS) | st.integers(-9, 9999), max_size=3))
        case "swap":
            other = header[draw(st.sampled_from(tensors))]
            entry["data_offsets"], other["data_offsets"] = other["data_offsets"], entry["data_offsets"]
        case "twice":
            return _packed(as_json(header).replace("{", '{"soft_prompt": 1, "__metadata__": {}, ', 1), data)
        case _:
            header = draw(edited(header, raw_values))
    return _packed(as_json(header), data)


@st.composite
def _metadata(draw: DrawFn, header: Any, data: bytes) -> bytes:
    """Edits of what the artifact says about itself."""
    metadata = draw(edited(json.loads(header["__metadata__"]["embedgrad"]), raw_values))
    text = as_json(metadata)
    if draw(st.booleans()) and text.startswith("{"):
        text = text.replace("{", '{"seed": {"text": "x", "token_ids": [[1]]}, "format_version": 2, ', 1)
    return _packed(json.dumps({**header, "__metadata__": {"embedgrad": text}}), data)


def _packed(header: str, data: bytes) -> bytes:
    raw = as_bytes(header)
    return struct.pack("<Q", len(raw)) + raw + data
