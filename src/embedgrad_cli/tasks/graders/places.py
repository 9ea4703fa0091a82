r"""Where a text says what its answer is: behind its thoughts, in a box, in answer tags, after "the answer is".

All graders look in these places, in this order, and each reads there what its kind of answer is.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator

_MOST = 20  # places of a kind that are looked at, from the end

# Thoughts: what stands between such marks, whichever model writes them.
_THOUGHT = r"(?:seed:)?(?:think|thinking|thoughts?|reasoning|reflection|scratchpad|analysis|rationale|reason|cot)"
_THOUGHT_MARKS = re.compile(
    rf"(?P<opens><{_THOUGHT}(?:\s[^<>/]*)?>|<\|(?:begin_of_thought|start_thinking|{_THOUGHT})\|>|\[think\]|◁think▷"
    r"|<\|channel>thought|<unused94>thought|\bhere(?:'s| is) my thought process:)"
    rf"|</{_THOUGHT}\s*>|<\|(?:end_of_thought|end_thinking|/{_THOUGHT})\|>|\[/think\]|◁/think▷"
    r"|<channel\|>|<unused95>|\bhere(?:'s| is) my response:",
    re.IGNORECASE,
)
# Channels, with their marks or, where special tokens are left out, as the bare words that stood between these.
_CHANNELS = re.compile(r"<\|channel\|>|^\s*(?:analysis|commentary)(?=[A-Z0-9\"'(\\$])")
_FINAL = re.compile(r"(?:<\|channel\|>|assistant)\s*final(?:\s*(?:<\|constrain\|>)?\w*<\|message\|>)?")
_ENDS = re.compile(r"<\|(?:return|end|start|call)\|>")

_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
_UNBRACED = re.compile(r"[^{}$\n]+")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)

_TAGGED = re.compile(
    r"<(?P<tag>(?:final[_ ]?)?answer|ans)>(?P<content>.*?)(?:</(?P=tag)>|(?=<(?P=tag)>)|\Z)"
    r"|\[answer\](?P<bracketed>.+?)(?:\[/answer\]|\Z)",
    re.IGNORECASE | re.DOTALL,
)

_NOUN = (
    r"(?:answer|ans)(?:\s+(?:choice|option|letter))?"
    r"|(?:correct|right|best|final|likely|likeliest|appropriate|suitable|plausible|my)\s+"
    r"(?:option|choice|response|solution|result|statement|label|alternative|value|letter|one)"
)
_SAYS = (
    r"(?:\s*\([^()\n]*\))?(?:\s+(?:to|for|of|among|from|in|here)\b[^.,:\n]{0,80}?)?,?(?:\s+(?:therefore|thus|then|hence),?)?"
    r"\s+(?:is|was|are|(?:would|must|should|will|has\s+to)\s+be|equals)\b"
    r"(?!\s+(?:also|acceptable|correct|incorrect|right|wrong|not|clear|clearly\s+not|unique|obvious|known|unknown)\b)"
    r"|[\s*_`]*(?:[:=]|-(?=\s))"
)
# What follows, to the end of the sentence, is an answer that the text announces; it may begin on another line.
_ANNOUNCED = re.compile(
    rf"(?<![A-Za-z0-9/])(?<!first )(?<!second )(?<!third )(?<!next )(?:{_NOUN})(?:{_SAYS})"
    r"|\bI(?:\s+would|'d|\s+will|'ll|\s+have\s+to)?\s+(?:choose|pick|select|go\s+(?:with|for))\b"
    r"(?=\s+(?:option\s+|choice\s+|answer\s+)?\W{0,3}(?-i:[A-Z])(?!\w))"
    r"|\b(?:(?:so|therefore|thus|hence)[,:]|(?:it|this|that)(?:['’]s|\s+(?:is|must\s+be|would\s+be)))"
    r"(?=\s+\W{0,3}(?-i:[A-Z])\W*(?:\n|\Z))"
    r"|(?m:^)[\W_]{0,8}(?:(?:the|my)\s+)?(?:(?:final|correct)\s+)?answer(?:[*_\s]*\n|\s+(?=\W{0,3}[A-Z]\W{0,3}$))",
    re.IGNORECASE | re.MULTILINE,
)
_HEDGE = re.compile(
    r"(?:(?:therefore|thus|then|hence|clearly|obviously|definitely|simply|indeed|actually|(?:most\s+)?(?:likely|probably)"
    r"|still|just|about|approximately|roughly|exactly|equal\s+to|given\s+by|as\s+follows)\b[\s,:*_]*)+",
    re.IGNORECASE,
)
_BETWEEN = re.compile(r"[\s:*_`#]*(?:(?<=\n)>\s*)?")
_SENTENCE = re.compile(
    r"(?:\$\$.+?\$\$|\\\[.+?\\\]|\\begin\{(\w+\*?)\}.*?\\end\{\1\})?.*?(?=\.(?:[\s*_\"'”’)]|$)|。|\n|\Z)", re.DOTALL
)
_LOST_SIGN = re.compile(r"^([-–−])\s+(?=[\d$\\])")


def without_thoughts(text: str) -> str:
    """What a model says beside its thoughts; nothing as long as a thought that it began is not closed."""
    if _CHANNELS.search(text):
        finals = list(_FINAL.finditer(text))
        return _ENDS.split(text[finals[-1].end() :])[0] if finals else ""
    said: list[str] = []
    thinks, start = False, 0
    for mark in _THOUGHT_MARKS.finditer(text):
        opens = mark["opens"] is not None
        if opens and not thinks:
            said.append(text[start : mark.start()])
        elif not opens and not thinks:
            said.clear()  # the chat template had opened them
        thinks, start = opens, mark.end()
    return "" if thinks else "".join([*said, text[start:]])


def places(text: str) -> Iterator[str]:
    """The places where this text, without its thoughts, may say its answer: the surest first, of a kind the last."""
    yield from boxes(text)
    yield from tagged(text)
    yield from announced(text)


def boxes(text: str) -> Iterator[str]:
    r"""What stands in every complete `\boxed{…}` (or `\fbox{…}`, `\boxed 2`), the last first."""
    for box in _last(_BOX, text):
        content = _content_at(text, box.end())
        if content:
            yield content


def tagged(text: str) -> Iterator[str]:
    """What stands in `<answer>…</answer>`, the last first. The end of the text may close it: stop strings are cut."""
    for match in _last(_TAGGED, text):
        content = (match["content"] or match["bracketed"] or "").strip()
        if content:
            yield next(announced(content), content)


def announced(text: str) -> Iterator[str]:
    """The rest of the sentence after every "the answer is" or "Answer:", the last first."""
    for match in _last(_ANNOUNCED, text):
        between = _BETWEEN.match(text, match.end())
        start = between.end() if between else match.end()
        hedge = _HEDGE.match(text, start)
        rest = _SENTENCE.match(text, hedge.end() if hedge else start)
        said = rest.group().strip() if rest else ""
        if said:
            same_line = "\n" not in text[match.end() : start]  # there "- 3" is a number, and not an item of a list
            yield _LOST_SIGN.sub(r"\1", said) if same_line else said


def _last(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """The matches, the last first; not all, since a model that repeats itself may write thousands."""
    return reversed(deque(pattern.finditer(text), maxlen=_MOST))


def _content_at(text: str, start: int) -> str | None:
    """The braced group, or the rest of the formula, at `start`; None if its brace is never closed."""
    if not text.startswith("{", start):
        bare = _UNBRACED.match(text, start)
        return bare.group().strip().rstrip(".") if bare else None
    depth = 0
    for brace in _BRACE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)  # an escaped brace is a character, not a bracket
        if depth == 0:
            return text[start + 1 : brace.start()].strip()
    return None
