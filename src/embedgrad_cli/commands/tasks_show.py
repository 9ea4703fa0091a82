"""`embedgrad tasks show NAME`: three examples as the model will read them (the arm `seed`), and what each part costs in
tokens; then the first of them as the arms `none` and `bare` send it.
"""

from __future__ import annotations

import sys

from rich.text import Text

from embedgrad_cli.config.fields import seeds_of
from embedgrad_cli.config.schema import OptimizeConfig, TemplateConfig
from embedgrad_cli.core.model.tokenizer import ModelTokenizer, load_tokenizer
from embedgrad_cli.core.text.answer_tokens import continuation, encode_choices, whole_turn
from embedgrad_cli.core.text.few_shot import shown_template
from embedgrad_cli.core.text.template import PromptTemplate, Rendered
from embedgrad_cli.core.text.template_additions import added_by
from embedgrad_cli.errors import TemplateError
from embedgrad_cli.guards.console import Console
from embedgrad_cli.tasks.demonstrations import load_for
from embedgrad_cli.tasks.load import Row, Splits

SHOWN_ROWS = 3
COLOURS = {"prompt": "bold green", "query": "cyan", "target": "bold yellow"}


def show(config: OptimizeConfig) -> None:
    """Print what a task makes of its first rows with this prompt, template and model. No weights are loaded.

    Args:
        config: as for `optimize`, checked.

    Raises:
        DataError: the data is not what the task's settings say.
        ModelError: the tokenizer cannot be loaded.
        TemplateError: the template cannot carry prompt and query.
    """
    config, splits = load_for(config)
    task, model = config.task, load_tokenizer(config.model)
    seeds = list(seeds_of(config.prompt))
    bare = PromptTemplate(config.template, seeds, model.tokenizer, model.is_chat)
    template = shown_template(config, splits)
    prompt_template = PromptTemplate(template, seeds, model.tokenizer, model.is_chat) if splits.fewshot else bare

    console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
    kind = "chat template" if model.is_chat else "plain text"
    console.print(f"{task.name}: {task.kind}, on the tokenizer of {config.model.path}, {kind}", soft_wrap=True)
    console.print(_about(splits), soft_wrap=True)
    for row in splits.train[:SHOWN_ROWS]:
        rendered = prompt_template.render(row.query)
        counts = count_tokens(rendered, prompt_template)
        if splits.fewshot:
            counts["worked examples"] = counts["template"] - count_tokens(bare.render(row.query), bare)["template"]
            counts["template"] -= counts["worked examples"]
        with_end = task.kind == "generation" or encode_choices(row.choices, prompt_template).with_end
        target = (whole_turn if with_end else continuation)(row.target, prompt_template)
        console.print(f"\n{row.id} · {_tokens(counts, len(target))}{_choices(row)}", style="bold", soft_wrap=True)
        written = prompt_template.blank + row.target + (_end_text(prompt_template) if with_end else "")
        console.print(marked(rendered, written), soft_wrap=True)
    _print_addition(console, "seed", prompt_template)
    for name, is_chat in (("none", model.is_chat), ("bare", False)):
        _print_arm(console, name, splits.train[0], template, model, is_chat)


def _print_arm(
    console: Console, name: str, row: Row, template: TemplateConfig, model: ModelTokenizer, is_chat: bool
) -> None:
    """What an arm without a prompt sends."""
    try:
        arm = PromptTemplate(template, None, model.tokenizer, is_chat)
        rendered = arm.render(row.query)
    except TemplateError as error:
        console.print(f"\n{row.id} · the arm {name} cannot be sent: {error}", soft_wrap=True)
        return
    console.print(f"\n{row.id} · the arm {name}, which has no prompt", style="bold")
    console.print(_with_parts(rendered), soft_wrap=True)
    _print_addition(console, name, arm)


def _print_addition(console: Console, name: str, arm: PromptTemplate) -> None:
    """What the chat template writes by itself: then `none` is not empty, and `seed` not only the seed."""
    addition = added_by(arm)
    if addition:
        what = "a system turn" if addition.is_system_turn else "text"
        console.print(f"The chat template adds {what} of its own under {name}: {addition.text!r}", soft_wrap=True)


def count_tokens(rendered: Rendered, prompt_template: PromptTemplate) -> dict[str, int]:
    """Tokens of template, prompt and query. One that straddles an edge is the prompt's, else the query's."""
    encoded = prompt_template.tokenizer(
        rendered.text, add_special_tokens=prompt_template.adds_special_tokens, return_offsets_mapping=True
    )
    counts = {"template": 0, "prompt": 0, "query": 0}
    for begin, end in encoded["offset_mapping"]:
        in_slot = any(begin < b and end > a for a, b in rendered.slots)
        in_query = any(begin < b and end > a for a, b in rendered.queries)
        counts["prompt" if in_slot else "query" if in_query else "template"] += 1
    return counts


def marked(rendered: Rendered, target: str) -> Text:
    """The conversation and its target, with `[prompt: …]`, `[query: …]`, `[target: …]` around the parts."""
    return _with_parts(rendered).append(f"[target: {target}]", COLOURS["target"])


def _with_parts(rendered: Rendered) -> Text:
    text, at = Text(), 0
    parts = [(*span, "prompt") for span in rendered.slots] + [(*span, "query") for span in rendered.queries]
    for begin, stop, name in sorted(parts):
        text.append(rendered.text[at:begin], "dim")
        text.append(f"[{name}: {rendered.text[begin:stop]}]", COLOURS[name])
        at = stop
    return text.append(rendered.text[at:], "dim")


def _about(splits: Splits) -> str:
    report = splits.report
    counts = ", ".join(f"{count:,} {name}" for name, count in (report.counts or {}).items())
    lines = [f"rows: {counts}; {report.duplicates_removed} repetitions removed"]
    if report.contradictions:
        lines.append(f"contradictory rows left out: {', '.join(report.contradictions)}")
    if any(report.overlaps_removed.values()):
        lines.append(f"rows that a later split also holds, left out: {report.overlaps_removed}")
    if report.broken_rows_skipped:
        lines += ["broken rows left out:", *report.broken_rows_skipped.rows]
    return "\n".join(lines)


def _tokens(counts: dict[str, int], target: int) -> str:
    parts = " + ".join(f"{count} {name}" for name, count in counts.items())
    return f"{sum(counts.values())} tokens = {parts}; then {target} target"


def _choices(row: Row) -> str:
    return f" · choices: {', '.join(row.choices)}" if row.choices else ""


def _end_text(prompt_template: PromptTemplate) -> str:
    end = prompt_template.turn_end
    return end.text + ("" if end.token_id is None else prompt_template.tokenizer.decode([end.token_id]))
