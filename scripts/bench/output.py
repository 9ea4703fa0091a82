"""Arguments that all benchmarks know, and rows as a table and as JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from .models import SIZES, ModelSpec

TABLE_WIDTH = 140


def parser(docstring: str | None) -> argparse.ArgumentParser:
    """With --json, --repeats and what names a model; the description is the script's docstring."""
    result = argparse.ArgumentParser(description=docstring, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to this file")
    result.add_argument("--repeats", type=int, default=5, help="timed rounds, of which medians are taken (default 5)")
    result.add_argument("--size", choices=SIZES, default="16M", help="a small body (default 16M)")
    result.add_argument("--config", metavar="FILE", help="a model's config.json instead: random weights, real shape")
    result.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    result.add_argument("--dtype", choices=["float32", "bfloat16"], help="default: float32, on cuda bfloat16")
    return result


def spec_of(arguments: argparse.Namespace, vocabulary: int | None = None) -> ModelSpec:
    """The model that the arguments name, with another vocabulary if one is given."""
    dtype = arguments.dtype or ("bfloat16" if arguments.device == "cuda" else "float32")
    return ModelSpec(arguments.config or arguments.size, vocabulary, device=arguments.device, dtype=dtype)


def machine(spec: ModelSpec) -> str:
    device = torch.cuda.get_device_name() if spec.device == "cuda" else f"{torch.get_num_threads()} threads"
    return f"{spec.name}, {spec.dtype}, {device}, torch {torch.__version__}"


def show(title: str, rows: Sequence[dict[str, Any]], columns: Sequence[str], file: Path | None) -> None:
    """Print some columns of the rows; write all of them to the file."""
    table = Table(title=title)
    for name in columns:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*(_text(row[name]) for name in columns))
    Console(width=TABLE_WIDTH).print(table)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(rows, indent=2) + "\n")


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def ratio(above: float | None, below: float | None) -> float | None:
    """A quotient; None where one of the two is not known."""
    return round(above / below, 3) if above is not None and below else None
