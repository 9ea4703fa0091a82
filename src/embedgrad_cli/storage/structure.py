"""From plain data, as JSON and YAML hold it, to dataclasses and back, with every problem found on the way.

`cattrs` walks the data. Here it is made strict: no value is converted that is not what its type says, and what is wrong
comes back as a list of `Problem`s instead of one exception.

converter = make_converter()
structure({"wins": "3"}, Comparison, converter)  # None, [Problem("wins", "3", "a whole number"), …]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import Field, dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from cattrs import BaseValidationError, ClassValidationError, Converter, ForbiddenExtraKeysError
from cattrs.cols import homogenous_tuple_structure_factory, list_structure_factory, mapping_structure_factory
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from embedgrad_cli.storage.nearest_name import nearest

T = TypeVar("T")
Hook = Callable[[Any], Any]
Pair = tuple[float, float]
NOTHING = object()  # what is found where a key is missing


@dataclass(frozen=True)
class Problem:
    """What is wrong at one place.

    Args:
        key: dotted, with the numbers of list items: `task.split.num_test`, `arms[0]`.
        found: what stands there; `NOTHING` where a key is missing.
        expected: completes "it is not …"; None where there should be no such key.
    """

    key: str
    found: Any
    expected: str | None


class NotExpected(ValueError):
    """A value is not what its type says. The message is what was expected: "a whole number"."""


def structure(content: Any, kind: type[T], converter: Converter, key: str = "") -> tuple[T | None, list[Problem]]:
    """Make a `kind` of plain data. Returns: the object, or None; and every problem, with keys that begin with `key`."""
    try:
        return converter.structure(content, kind), []
    except (BaseValidationError, NotExpected) as error:
        return None, list(_problems(error, key, content))


def make_converter(
    text: Hook | None = None, texts: Hook | None = None, check: Callable[[Any, Field[Any]], None] | None = None
) -> Converter:
    """A strict converter of dataclasses.

    Args:
        text: what makes a `str` of a value; None takes text as it is and nothing else.
        texts: what makes the items of a `list[str]` of a value; None takes lists.
        check: looks at every value of a dataclass's field once its type is right; raises `NotExpected`.
    """
    converter = Converter(forbid_extra_keys=True)
    scalars: dict[type, Hook] = {str: text or to_text, int: to_whole_number, float: to_number, bool: to_truth_value}
    for scalar, hook in scalars.items():
        converter.register_structure_hook(scalar, lambda value, _, hook=hook: hook(value))  # type: ignore[misc]
    converter.register_structure_hook_func(_is(Literal), lambda value, kind: _to_choice(get_args(kind), value))
    converter.register_structure_hook_func(
        _is(Union, UnionType), lambda value, kind: _to_union(get_args(kind), value, converter)
    )
    guarded: dict[Any, tuple[Hook, Callable[..., Any]]] = {
        list: (to_list, list_structure_factory),
        tuple: (to_list, homogenous_tuple_structure_factory),
        dict: (to_mapping, mapping_structure_factory),
    }
    for origin, (hook, factory) in guarded.items():
        converter.register_structure_hook_factory(
            _is(origin), lambda kind, hook=hook, factory=factory: _after(hook, factory(kind, converter))
        )
    if texts is not None:
        as_texts = _after(texts, list_structure_factory(list[str], converter))
        converter.register_structure_hook_func(lambda kind: kind == list[str], as_texts)
    converter.register_structure_hook_func(lambda kind: kind == Pair, lambda value, _: _to_pair(value))
    converter.register_structure_hook_factory(is_dataclass, lambda kind: dataclass_hook(kind, converter, check))
    converter.register_unstructure_hook_factory(is_dataclass, lambda kind: _to_plain_hook(kind, converter))
    return converter


def to_text(value: Any) -> str:
    if not isinstance(value, str):
        raise NotExpected("text")
    return value


def to_number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise NotExpected("a number")
    return float(value)


def to_whole_number(value: Any) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 1e3
    if isinstance(value, bool) or not isinstance(value, int):
        raise NotExpected("a whole number")
    return value


def to_truth_value(value: Any) -> bool:
    if not isinstance(value, bool):
        raise NotExpected("true or false")
    return value


def to_list(value: Any) -> Iterable[Any]:
    if not isinstance(value, list | tuple):
        raise NotExpected("a list such as [a, b]")
    return value


def to_mapping(value: Any) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise NotExpected("a mapping such as {0: negative, 1: positive}")
    return value


def _to_pair(value: Any) -> Pair:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise NotExpected("a list of two numbers")
    return to_number(value[0]), to_number(value[1])


def _to_choice(choices: tuple[str, ...], value: Any) -> str:
    if isinstance(value, str) and value in choices:
        return value
    hint = nearest(str(value), choices)
    raise NotExpected(f"one of {', '.join(choices)}" + (f"; did you mean {hint}" if hint else ""))


def _to_union(kinds: tuple[Any, ...], value: Any, converter: Converter) -> Any:
    if value is None and NoneType in kinds:
        return None
    words = [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
    if isinstance(value, str) and value in words:
        return value
    options = [kind for kind in kinds if kind is not NoneType and get_origin(kind) is not Literal]
    if not options:
        return _to_choice(tuple(words), value)
    if int in options and float in options:
        number = to_number(value)
        return int(number) if number.is_integer() else number
    fitting = [kind for kind in options if (get_origin(kind) is list) == isinstance(value, list)]
    try:
        return converter.structure(value, (fitting or options)[0])
    except NotExpected as error:
        raise NotExpected(" or ".join([str(error), *words])) from None


def _is(*origins: Any) -> Callable[[Any], bool]:
    return lambda kind: get_origin(kind) in origins


def _after(hook: Hook, then: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda value, kind: then(hook(value), kind)


def dataclass_hook(
    kind: Any, converter: Converter, check: Callable[[Any, Field[Any]], None] | None = None, closed: bool = True
) -> Callable[[Any, Any], Any]:
    """What makes a dataclass of a mapping. `closed`: a key that is no field is a problem, else it is passed over."""

    def checked(item: Field[Any]) -> Callable[[Any, Any], Any]:
        def hook(value: Any, of: Any) -> Any:
            converted = converter.structure(value, of)
            if check is not None:
                check(converted, item)
            return converted

        return hook

    names = {item.name: override(struct_hook=checked(item)) for item in fields(kind)}
    from_mapping: Any = make_dict_structure_fn(kind, converter, _cattrs_forbid_extra_keys=closed, **names)  # type: ignore[arg-type]

    def group(value: Any) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            raise NotExpected(f"a group with the keys {', '.join(names)}")
        return value

    return _after(group, from_mapping)


def _to_plain_hook(kind: Any, converter: Converter) -> Callable[[Any], Any]:
    """What may be absent, a field whose default is None, is left out where it is None."""
    optional = {item.name: override(omit_if_default=True) for item in fields(kind) if item.default is None}
    return make_dict_unstructure_fn(kind, converter, **optional)  # type: ignore[arg-type]


def _problems(error: Exception, key: str, content: Any) -> Iterator[Problem]:
    """The problems in an error of cattrs, whose groups follow the data's own nesting."""
    if isinstance(error, BaseValidationError):
        located, others = error.group_exceptions()  # type: ignore[attr-defined]
        for inner, note in located:
            at = note.name if isinstance(error, ClassValidationError) else note.index
            yield from _problems(inner, _below(key, at), _at(content, at))
        for inner in others:
            yield from _problems(inner, key, content)
    elif isinstance(error, ForbiddenExtraKeysError):
        for name in (name for name in content if name in error.extra_fields):
            yield Problem(_below(key, name), content[name], None)
    elif isinstance(error, KeyError):
        yield Problem(key, NOTHING, "there")
    else:
        yield Problem(key, content, str(error))


def _below(key: str, at: str | int) -> str:
    if isinstance(at, int):
        return f"{key}[{at}]"
    return f"{key}.{at}" if key else at


def _at(content: Any, at: str | int) -> Any:
    try:
        return content[at]
    except (KeyError, IndexError, TypeError):
        return NOTHING
