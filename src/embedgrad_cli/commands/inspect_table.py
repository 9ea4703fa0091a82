"""The report of `embedgrad inspect` for people."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from embedgrad_cli.config.fields import as_texts
from embedgrad_cli.core.prompt.artifact import tested_on
from embedgrad_cli.evaluation.significance import verdict

ORDER = ("none", "seed", "optimized")
NO_MEANING = "Nearest tokens are not meanings: vectors close to a text may do something else than the text."


def print_report(report: Mapping[str, Any]) -> None:
    """Print what `inspect.describe` returns: facts, one line per token, what is missing."""
    console = Console(file=sys.stdout, highlight=False)
    if not console.is_terminal:
        console = Console(file=sys.stdout, highlight=False, width=100_000)  # lines are as long as they need to be
    facts = Table(box=None, show_header=False, pad_edge=False)
    for name, value in _facts(report):
        facts.add_row(Text(name, style="bold"), Text(value))
    console.print(facts)
    console.print()
    console.print(_tokens(report))
    if report["missing"]:
        console.print(f"Nearest tokens are not shown: {report['missing']}", soft_wrap=True, markup=False)
    else:
        console.print(NO_MEANING, soft_wrap=True)
    if report["verified"]:
        console.print(f"Verified: the prompt was made for {report['verified']}.", soft_wrap=True, markup=False)


def _facts(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    metadata = report["metadata"]
    config, metrics = metadata["config"], metadata["metrics"]
    texts = metadata["seed"]["text"]
    yield "artifact", report["artifact"]
    for text in as_texts(texts):
        yield "seed text", text
    prints = metadata["model"]["fingerprint"]
    revision = f"@{metadata['model']['revision']}" if metadata["model"]["revision"] else ""
    hashes = f"config {prints['config'][:8]}, tokenizer {prints['tokenizer'][:8]}"
    yield "model", f"{metadata['model']['path']}{revision} ({hashes})"
    yield "template", _template(metadata["template"], config["model"]["template"])
    yield "task", f"{metadata['task']} (splits {metadata['split_hash'][:8]})"
    yield from _metrics(metrics)
    libraries = ", ".join(f"{name} {version}" for name, version in metadata["libraries"].items())
    optimizer, train = config["optimizer"], config["train"]
    settings = f"{optimizer['name']}, lr {optimizer['lr']:g}, {train['steps']} steps of {train['batch_size']} examples"
    yield "made by", f"{settings}, seed {config['seed']}; {libraries}; format {metadata['format_version']}"


def _metrics(metrics: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if "validation" in metrics:
        best = metrics["validation"]
        yield "validation", f"{best['accuracy']:.1%}, loss {best['loss']:.3f}, after step {best['step']}"
    if "test" not in metrics:
        yield "test", "not measured: the run was stopped before its test"
        return
    arms = metrics["test"]["arms"]
    for name, arm in sorted(arms.items(), key=lambda item: ORDER.index(item[0]) if item[0] in ORDER else len(ORDER)):
        low, high = arm["ci95"]
        yield f"test, {name}", f"{arm['accuracy']:.1%} ({low:.1%} to {high:.1%}), {arm['correct']} correct"
    n = tested_on(metrics["test"])
    if n:
        yield "verdict", verdict(metrics["test"]["comparison"], n)


def _template(template: Mapping[str, Any], kind: str) -> str:
    messages = " · ".join(f"{m['role']}: {m['content']!r}" for m in template["messages"])
    return repr(template["text"]) if kind == "plain" else messages


def _tokens(report: Mapping[str, Any]) -> Table:
    """One line per vector, with a rule between slots."""
    table = Table(box=box.ROUNDED)
    for heading in ("slot", "seed token", "drift", "cosine"):
        table.add_column(heading, justify="left" if heading == "seed token" else "right")
    if not report["missing"]:
        table.add_column("nearest tokens (cosine)", overflow="fold")
    rows = report["tokens"]
    for number, row in enumerate(rows):
        cells = [str(row["slot"]), _shown(row["seed"], row["seed_id"])]
        cells += [f"{row['relative_drift']:.3f}", f"{row['cosine']:.3f}"]
        if not report["missing"]:
            cells.append("  ".join(f"{_shown(n['token'], n['id'])} {n['cosine']:.2f}" for n in row["nearest"]))
        ends_slot = number + 1 < len(rows) and rows[number + 1]["slot"] != row["slot"]
        table.add_row(*map(Text, cells), end_section=ends_slot)
    return table


def _shown(token: str | None, token_id: int) -> str:
    return repr(token) if token is not None else f"#{token_id}"
