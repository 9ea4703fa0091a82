"""The Python interface, read from the source: to import it would be to import torch."""

from __future__ import annotations

import ast
from pathlib import Path

import embedgrad_cli
from docs_site.docstrings import as_markdown

PACKAGE = Path(embedgrad_cli.__file__).parent


def interface() -> str:
    """Signature and docstring of `load` and of every public member of `Prompt`."""
    (load,) = [node for node in _tree("__init__.py").body if isinstance(node, ast.FunctionDef)]
    (prompt,) = [node for node in _tree("prompt.py").body if isinstance(node, ast.ClassDef) and node.name == "Prompt"]
    members = [node for node in prompt.body if isinstance(node, ast.FunctionDef) and node.name[0] != "_"]
    text = [_section("embedgrad_cli.load", load)]
    text += [_section(f"Prompt.{node.name}", node) for node in members if ast.get_docstring(node)]
    return "\n\n".join(text)


def _tree(file: str) -> ast.Module:
    return ast.parse((PACKAGE / file).read_text(encoding="utf-8"))


def _section(name: str, node: ast.FunctionDef) -> str:
    is_property = any(isinstance(mark, ast.Name) and mark.id == "property" for mark in node.decorator_list)
    arguments = ast.unparse(node.args).removeprefix("self, ").removeprefix("self")
    result = ast.unparse(node.returns) if node.returns else "None"
    signature = f"{name}: {result}" if is_property else f"{name}({arguments}) -> {result}"
    return f"### `{name}`\n\n```\n{signature}\n```\n\n{as_markdown(ast.get_docstring(node) or '')}"
