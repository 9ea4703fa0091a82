"""The report of `embedgrad inspect` for people."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.table import Table
from rich.text import Text

from embedgrad_cli.config.fields import as_texts
from embedgrad_cli.core.prompt.artifact import identity
from embedgrad_cli.core.prompt.inspection import Inspection
from embedgrad_cli.evaluation.significance import show_interval, verdict
from embedgrad_cli.guards.console import for_results
from embedgrad_cli.storage.artifact_metadata import PromptMetrics, TemplateRecord

ORDER = ("none", "seed", "optimized")
NO_MEANING = "Nearest tokens are not meanings: vectors close to a text may do something else than the text."


def print_report(report: Inspection) -> None:
    """Print facts, one line per token, what is missing."""
    console = for_results()
    facts = Table(box=None, show_header=False, pad_edge=False)
    for name, value in _facts(report):
        facts.add_row(Text(name, style="bold"), Text(value))
    console.print(facts)
    console.print()
    console.print(_tokens(report))
    if report.missing:
        console.print(f"Nearest tokens are not shown: {report.missing}", soft_wrap=True, markup=False)
    else:
        console.print(NO_MEANING, soft_wrap=True)
    if report.verified:
        console.print(f"Verified: the prompt was made for {report.verified}.", soft_wrap=True, markup=False)


def _facts(report: Inspection) -> Iterator[tuple[str, str]]:
    metadata = report.metadata
    config, model = metadata.config, metadata.model
    yield "artifact", report.artifact
    for text in as_texts(metadata.seed.text):
        yield "seed text", text
    yield "model", identity(model)
    yield "template", _template(metadata.template, config.model.template)
    yield "task", f"{metadata.task} (splits {metadata.split_hash[:8]})"
    yield from _metrics(metadata.metrics)
    libraries = ", ".join(f"{name} {version}" for name, version in metadata.libraries.items())
    train, optimizer = config.train, config.optimizer
    settings = f"{optimizer.name}, lr {optimizer.lr:g}, {train.steps} steps of {train.batch_size} examples"
    yield "made by", f"{settings}, seed {config.seed}; {libraries}; format {metadata.format_version}"


def _metrics(metrics: PromptMetrics) -> Iterator[tuple[str, str]]:
    if metrics.validation:
        best = metrics.validation
        yield "validation", f"{best.accuracy:.1%}, loss {best.loss:.3f}, after step {best.step}"
    if metrics.test is None:
        yield "test", "not measured: the run was stopped before its test"
        return
    arms = metrics.test.arms
    for name, arm in sorted(arms.items(), key=lambda item: ORDER.index(item[0]) if item[0] in ORDER else len(ORDER)):
        yield f"test, {name}", f"{arm.accuracy:.1%} ({show_interval(arm.ci95)}), {arm.correct} correct"
    if metrics.test.comparison and metrics.test.num_examples:
        yield "verdict", verdict(metrics.test.comparison, metrics.test.num_examples)
        yield "wins, losses", f"{metrics.test.comparison.wins}, {metrics.test.comparison.losses}"
    if metrics.elsewhere:
        found = metrics.elsewhere
        said = f"{found.kl:.3f} nats per token from the seed (KL), {found.first_token_kl:.3f} where replies begin"
        yield "elsewhere", f"{said}; the same likeliest token at {found.same_token:.1%} of places"


def _template(template: TemplateRecord, kind: str) -> str:
    messages = " · ".join(f"{message.role}: {message.content!r}" for message in template.messages)
    return repr(template.text) if kind == "plain" else messages


def _tokens(report: Inspection) -> Table:
    """One line per vector, with a rule between slots."""
    table = Table(box=box.ROUNDED)
    for heading in ("slot", "seed token", "drift", "cosine"):
        table.add_column(heading, justify="left" if heading == "seed token" else "right")
    if not report.missing:
        table.add_column("nearest tokens (cosine)", overflow="fold")
    rows = report.tokens
    for number, row in enumerate(rows):
        cells = [str(row.slot), row.seed_name, f"{row.relative_drift:.3f}", f"{row.cosine:.3f}"]
        if not report.missing:
            cells.append("  ".join(f"{near.name} {near.cosine:.2f}" for near in row.nearest))
        ends_slot = number + 1 < len(rows) and rows[number + 1].slot != row.slot
        table.add_row(*map(Text, cells), end_section=ends_slot)
    return table
