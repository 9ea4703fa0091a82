"""The table of faults: tried, survived, by kind, fault and command."""

from __future__ import annotations

from collections.abc import Sequence

from torture.cases import Outcome


def table(outcomes: Sequence[Outcome]) -> str:
    """As Markdown."""
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault((outcome.kind, outcome.fault), []).append(outcome)
    lines = ["| kind | fault | commands | tried | survived |", "| --- | --- | --- | ---: | ---: |"]
    for (kind, fault), group in groups.items():
        commands = ", ".join(dict.fromkeys(outcome.command for outcome in group))
        lines.append(f"| {kind} | {fault} | {commands} | {_counts(group)} |")
    return "\n".join([*lines, f"| all | | | {_counts(outcomes)} |", ""])


def _counts(group: Sequence[Outcome]) -> str:
    return f"{sum(one.times for one in group)} | {sum(one.times for one in group if not one.wrong)}"
