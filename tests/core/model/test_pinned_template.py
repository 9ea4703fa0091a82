"""What a chat template is told is fixed in it: arguments, and the day that its clock shows."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import pytest
from tests.conftest import CHAT_TEMPLATE, make_tokenizer

from embedgrad_cli.core.model.pinned_template import original_of, pin, pinned_day
from embedgrad_cli.errors import ModelError

FORMATS = ["%d %b %Y", "%Y-%m-%d", "%A, %-d. %B %y", "100%% on %%d %d", "%F %H:%M", "%e.%-m. (%j, week %V)", "no date"]
DAYS = [date(2026, 11, 28), date(2027, 1, 1), date(2024, 2, 29)]
# As Llama 3.2 does it: a caller's date goes before the clock's.
DATE_STRING = (
    "{%- if not date_string is defined %}{%- if strftime_now is defined %}"
    "{%- set date_string = strftime_now('%d %b %Y') %}{%- else %}{%- set date_string = '26 Jul 2024' %}{%- endif %}"
    "{%- endif %}{{ date_string }}"
)


def rendered(template: Any, **told: Any) -> str:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    return tokenizer.apply_chat_template([{"role": "user", "content": "?"}], tokenize=False, **told)


@pytest.mark.parametrize("day", DAYS, ids=str)
def test_the_clock_shows_one_day(day: date) -> None:
    midnight = datetime(day.year, day.month, day.day)
    for format in FORMATS:
        within_macro = f"{{% macro now() %}}{{{{ strftime_now('{format}') }}}}{{% endmacro %}}{{{{ now() }}}}"
        for template in (f"{{{{ strftime_now('{format}') }}}}", within_macro):
            assert rendered(pin(template, None, day)) == midnight.strftime(format)
    assert rendered(pin(DATE_STRING, None, day)) == midnight.strftime("%d %b %Y")
    assert pinned_day(pin(DATE_STRING, None, day)) == day.isoformat()


def test_an_argument_goes_before_what_a_caller_says() -> None:
    template = DATE_STRING + "|{{ nothing is none }}|{{ deep['a'] }}|{{ deep['a'][4] }}"
    told: Any = {"date_string": "today", "nothing": None, "deep": {"a": [1, 2.5, None, True, 'a"\n{{ b }}']}}
    pinned = pin(template, told, DAYS[0])
    assert rendered(pinned, date_string="never", deep={}) == f"today|True|{told['deep']['a']}|{told['deep']['a'][4]}"
    assert original_of(pinned) == template
    assert pin(pinned, told, DAYS[1]) == pin(template, told, DAYS[1])


def test_the_template_itself_is_left_as_it_is() -> None:
    assert pin(CHAT_TEMPLATE, None, DAYS[0]) == CHAT_TEMPLATE
    assert pinned_day(CHAT_TEMPLATE) is None
    several = {"default": DATE_STRING, "tool_use": CHAT_TEMPLATE}
    pinned = pin(several, {"date_string": "now"}, DAYS[0])
    assert pinned_day(pinned) == DAYS[0].isoformat()
    assert original_of(pinned) == several


def test_an_argument_that_no_template_reads_is_named() -> None:
    with pytest.raises(ModelError, match=r"chat_template_kwargs\.enable_thinkng"):
        pin("{{ enable_thinking }}", {"enable_thinkng": False}, DAYS[0])
