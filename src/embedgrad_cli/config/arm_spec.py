"""What `arms=[none,seed,optimized,text:"Think first.",FILE.safetensors]` says. Nothing heavy is imported.

parse_arm("text:Think first.")  # ArmSpec(name="text:Think first.", kind="text", value="Think first.")
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

WORDS = {
    "none": "the template without the prompt",
    "bare": "the same as plain text, without the model's chat template",
    "seed": "prompt.text",
    "optimized": "the vectors of artifact=FILE",
    "served": "what server=URL adds to the query by itself",
}
TEXT = "text:"
SUFFIX = ".safetensors"
LONGEST_NAME = 16  # of an arm in a table
LABELS = ("text", "file")  # of arms with longer names
TEXT_ITEM = re.compile(
    r"""(?<=[\[,=])\s*text:\s*(?:"(?P<double>(?:[^"\\]|\\.)*)"|'(?P<single>(?:[^'\\]|\\.)*)'|(?P<bare>[^,\]]*))"""
)


@dataclass(frozen=True)
class ArmSpec:
    """One item of `arms`: its name in the results, what kind of prompt it is, and the text or the file."""

    name: str
    kind: Literal["none", "bare", "seed", "optimized", "served", "text", "artifact"]
    value: str = ""


def parse_arm(item: str) -> ArmSpec:
    """One item of `arms`.

    Raises:
        ValueError: says what is wrong and what there is.
    """
    if item in WORDS:
        return ArmSpec(item, item)  # type: ignore[arg-type]
    if item.startswith(TEXT):
        text = item.removeprefix(TEXT).strip()
        if not text:
            raise ValueError(f"{item!r} has no text. Write 'arms=[seed,text:\"Think first.\"]'.")
        return ArmSpec(TEXT + text, "text", text)
    if item.endswith(SUFFIX):
        return ArmSpec(item, "artifact", item)
    close = difflib.get_close_matches(item, WORDS, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    raise ValueError(
        f'{item!r} is no arm.{hint} Arms are {", ".join(WORDS)}, text:"…" (any prompt; a text with a comma in quotes '
        f"that the shell leaves: 'arms=[text:\"First, think.\"]') and files that end in {SUFFIX}."
    )


def choose_baseline(arms: Sequence[str], baseline: str | None) -> str:
    """The arm that the others are compared with: the one named, or `seed`, or the first."""
    return baseline or ("seed" if "seed" in arms else arms[0])


def short_names(names: Sequence[str]) -> dict[str, str]:
    """The names for tables, bars and sentences: long ones become `text 1`, `file 2`, or `text` if it is the only one.

    What a label stands for is said by `legend`.
    """
    long = {kind: [name for name in names if len(name) > LONGEST_NAME and _kind(name) == kind] for kind in LABELS}
    labels = {name: name for name in names}
    for kind, of_kind in long.items():
        labels |= {name: kind if len(of_kind) == 1 else f"{kind} {i}" for i, name in enumerate(of_kind, start=1)}
    return labels


def legend(names: Sequence[str]) -> list[str]:
    """A line for each label: what it stands for, whole, in one line."""
    said = ((label, name) for name, label in short_names(names).items() if label != name)
    return [f"{label}: {' '.join(name.removeprefix(TEXT).split())}" for label, name in said]


def _kind(name: str) -> str:
    return "file" if name.endswith(SUFFIX) and not name.startswith(TEXT) else "text"


def quote_texts(override: str) -> str:
    """`arms=[seed,text:"Let's think."]` as Hydra's grammar wants it: `arms=[seed,"text:Let's think."]`.

    A text without quotes goes up to the next comma or the closing bracket. `baseline=text:"…"` is written alike.
    """
    if not override.startswith(("arms=", "baseline=")):
        return override

    def quoted(match: re.Match[str]) -> str:
        escaped = match["double"]
        if escaped is None:
            plain = match["single"].replace("\\'", "'") if match["single"] is not None else match["bare"]
            escaped = plain.strip().replace('"', '\\"')
        return f'"{TEXT}{escaped}"'

    return TEXT_ITEM.sub(quoted, override)
