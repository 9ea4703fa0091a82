"""What breaks inputs: odd texts, odd values, edits of trees and of bytes, as Hypothesis draws them."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

RAW = "@raw:"  # a text that begins so stands in JSON as it is, without quotation marks
TEXTS = [
    "", " ", "\x00", "\x1b[2J\x1b]0;title\x07", "\x9b2J", "\r\n", "\u2028", "\u202e", "\ufeff", "\ud83d", "😀",
    "e\u0301", "null", "nan", "NaN", "-0", "0x10", "1_000", "1e999", "1e3", "true", "~", "-", "#", "[[[[", "{",
    "'\"", "\\", "%s%n", "../../etc/passwd", "/etc/passwd", "~root", "embedded:../x", "https://example.org/x",
    "a" * 50_000, "é\n" * 500, "{}",
    "${oc.env:HOME}", "${task}", "${x", "${task.query}", "${now:%Y}", "{query}", "{prompt.9}", "{a.__class__}",
    "<script>alert(1)</script>", "</script>", "(a+)+$", "[", "(?P<", "\\boxed{", "---", "&a", "*a",
    "!!python/object:os.system",
]  # fmt: skip


def _deep(depth: int) -> Any:
    tree: Any = []
    for _ in range(depth):
        tree = [tree]
    return tree


NUMBERS: list[Any] = [0, -1, 1, 2**31, 2**63, -(2**63), 2**64, 10**400, 0.5, -0.0, 1e308, math.nan, math.inf, -math.inf]
OTHERS: list[Any] = [None, True, False, [], {}, [[]], [None], {"": None}, {"a": {"a": {}}}, _deep(60)]
RAWS = [
    f"{RAW}{text}"
    for text in ("9" * 5000, "1e99999", "[" * 3000 + "]" * 3000, "-", "NaN", "0123", "tru", '"\\ud800"', "1.")
]

texts: SearchStrategy[str] = st.sampled_from(TEXTS) | st.text(max_size=20)
values: SearchStrategy[Any] = texts | st.sampled_from(NUMBERS) | st.sampled_from(OTHERS) | st.integers() | st.floats()
raw_values: SearchStrategy[Any] = values | st.sampled_from(RAWS)


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place below the top of a tree of dicts and lists."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [found for key, value in items for found in [(*path, key), *places(value, (*path, key))]]


@st.composite
def edited(draw: DrawFn, tree: Any, value: SearchStrategy[Any] = values, most: int = 3) -> Any:
    """A tree with one to `most` edits: another value, a key less, more, renamed, or a part in the place of another."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, most))):
        every = places(tree)
        if not every:
            return copy.deepcopy(draw(value))
        *path, key = draw(st.sampled_from(every))
        parent = tree
        for part in path:
            parent = parent[part]
        match draw(st.sampled_from(["value", "value", "remove", "rename", "add", "part"])):
            case "value":
                parent[key] = copy.deepcopy(draw(value))  # or a later edit would change what is drawn from
            case "remove":
                del parent[key]
            case "rename" if isinstance(parent, dict):
                parent[draw(texts)] = parent.pop(key)
            case "add" if isinstance(parent, dict):
                parent[draw(texts)] = copy.deepcopy(draw(value))
            case "add":
                parent.append(copy.deepcopy(draw(value)))
            case "part":
                other = tree
                for part in draw(st.sampled_from(every)):
                    try:
                        other = other[part]
                    except (KeyError, IndexError, TypeError):  # an edit before took it away
                        break
                parent[key] = copy.deepcopy(other)
    return tree


@st.composite
def cut_bytes(draw: DrawFn, content: bytes, most: int = 4) -> bytes:
    """Bytes that were cut, flipped, inserted, repeated."""
    for _ in range(draw(st.integers(1, most))):
        at = draw(st.integers(0, max(len(content) - 1, 0)))
        end = min(at + draw(st.integers(1, 64)), len(content))
        match draw(st.sampled_from(["cut", "flip", "insert", "repeat", "remove", "zero"])):
            case "cut":
                content = content[:at]
            case "flip":
                content = content[:at] + bytes(255 - byte for byte in content[at:end]) + content[end:]
            case "insert":
                content = content[:at] + draw(st.binary(max_size=16)) + content[at:]
            case "repeat":
                content = content[:end] + content[at:end] * draw(st.integers(1, 50)) + content[end:]
            case "remove":
                content = content[:at] + content[end:]
            case "zero":
                content = content[:at] + bytes(end - at) + content[end:]
    return content


def as_json(tree: Any, ascii_only: bool = True) -> str:
    """JSON, in which raw texts stand as they are."""
    text = json.dumps(tree, ensure_ascii=ascii_only)
    for raw in RAWS:
        text = text.replace(json.dumps(raw, ensure_ascii=ascii_only), raw.removeprefix(RAW))
    return text


def as_bytes(text: str) -> bytes:
    """UTF-8, with halves of characters as their own three bytes."""
    return text.encode("utf-8", "surrogatepass")
