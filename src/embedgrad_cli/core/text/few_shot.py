"""Worked examples before the query: they become part of the template, so that all that follows knows nothing of them.

Every example of a task is shown with the same ones, so they belong to the shared prefix (trunk), computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from embedgrad_cli.config.fields import PLACE, QUERY_PLACE, SLOT_AND_SPACE
from embedgrad_cli.config.schema import EvaluateConfig, Message, OptimizeConfig, TemplateConfig
from embedgrad_cli.config.task_schema import WorkedExample
from embedgrad_cli.errors import DataError
from embedgrad_cli.tasks.splits import Splits


def shown_template(config: OptimizeConfig | EvaluateConfig, splits: Splits) -> TemplateConfig:
    """The template of a run as every row is shown in it: with the worked examples of its task.

    Raises:
        DataError: as `with_examples`.
    """
    return with_examples(config.template, splits.fewshot, config.task.fewshot_style)


def with_examples(
    template: TemplateConfig, examples: Sequence[WorkedExample], style: Literal["text", "turns"]
) -> TemplateConfig:
    """The template with worked examples in front of its query.

    Args:
        style: `text` puts them into the query's own turn; `turns` makes each a turn of the user, worded as the
            query's without the prompt, and one of the assistant. A plain text has no turns and is always `text`.

    Raises:
        DataError: an example holds `{query}` or `{prompt}`, which would be taken for a place of the template.
    """
    if not examples:
        return template
    for number, example in enumerate(examples, start=1):
        found = PLACE.search(f"{example.query} {example.target}")
        if found:
            raise DataError(
                f"worked example {number} of task.fewshot holds {found.group()}, which is a place of the template: "
                f"{example.query[:60]!r}. Give the examples yourself, as a list in task.fewshot."
            )
    before = "".join(f"{example.query}\n{example.target}\n\n" for example in examples)
    messages = []
    for message in template.messages:
        if QUERY_PLACE not in message.content:
            messages.append(message)
        elif style == "turns":
            messages += [*_turns(message, examples), message]
        else:
            messages.append(Message(message.role, message.content.replace(QUERY_PLACE, before + QUERY_PLACE)))
    return TemplateConfig(messages, template.text.replace(QUERY_PLACE, before + QUERY_PLACE))


def _turns(message: Message, examples: Sequence[WorkedExample]) -> list[Message]:
    content = SLOT_AND_SPACE.sub("", message.content).strip()
    pairs = [(content.replace(QUERY_PLACE, example.query), example.target) for example in examples]
    return [Message(role, text) for pair in pairs for role, text in zip((message.role, "assistant"), pair, strict=True)]
