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
LONGEST_NAME = 48
TEXT_ITEM = re.compile(
    r"""(?<=[\[,])\s*text:\s*(?:"(?P<double>(?:[^"\\]|\\.)*)"|'(?P<single>(?:[^'\\]|\\.)*)'|(?P<bare>[^,\]]*))"""
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
    """The names for tables and sentences: long ones are cut, unless two would look the same then."""
    cut = {name: name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…" for name in names}
    return cut if len(set(cut.values())) == len(cut) else {name: name for name in names}


def quote_texts(override: str) -> str:
    """`arms=[seed,text:"Let's think."]` as Hydra's grammar wants it: `arms=[seed,"text:Let's think."]`.

    A text without quotes goes up to the next comma or the closing bracket.
    """
    if not override.startswith("arms="):
        return override

    def quoted(match: re.Match[str]) -> str:
        escaped = match["double"]
        if escaped is None:
            plain = match["single"].replace("\\'", "'") if match["single"] is not None else match["bare"]
            escaped = plain.strip().replace('"', '\\"')
        return f'"{TEXT}{escaped}"'

    return TEXT_ITEM.sub(quoted, override)
