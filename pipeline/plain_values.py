"""Plain values, as a file, a command line or a caller gives them, to frozen settings of the right types.

Owns the strictness: an unknown name, or a value of another type, is an error that says what was meant.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from enum import Enum
from types import UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from pipeline.errors import ConfigError

S = TypeVar("S")

_WORDS: dict[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def to_settings(settings_type: type[S], values: Mapping[str, Any], *, prefix: str = "") -> S:
    """A frozen dataclass from plain values. Settings without a value keep their default.

    raises  ConfigError with the key, and for a wrong value also with the value and what it should be
    """
    hints = get_type_hints(settings_type)
    for key in values:
        if key not in hints:
            raise unknown(f"{prefix}{key}", [f"{prefix}{name}" for name in hints])
    return settings_type(**{key: _convert(hints[key], value, f"{prefix}{key}") for key, value in values.items()})


def _convert(hint: Any, value: Any, key: str) -> Any:
    if is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{key}={value!r} must be a group of settings")
        return to_settings(cast("type[Any]", hint), cast("Mapping[str, Any]", value), prefix=f"{key}.")
    if get_origin(hint) in (Union, UnionType):
        if value is None:
            return None
        (inner,) = (choice for choice in get_args(hint) if choice is not type(None))
        return _convert(inner, value, key)
    if get_origin(hint) is tuple:
        return _numbers(value, len(get_args(hint)), key)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _member(hint, value, key)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not hint:
        hint_for_text = f"; write {key}='\"{value}\"'" if hint is str and value is not None else ""
        raise ConfigError(f"{key}={spelled(value)} must be {_WORDS[hint]}{hint_for_text}")
    return value


def _numbers(value: Any, count: int, key: str) -> tuple[int, ...]:
    """From a list, a tuple, or a text with commas."""
    try:
        parts = value.split(",") if isinstance(value, str) else list(value)
        if any(isinstance(part, bool | float) for part in parts):
            raise TypeError
        numbers = tuple(int(part) for part in parts)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != count:
        raise ConfigError(f"{key}={spelled(value)} must be {count} whole numbers, written [{','.join('123'[:count])}]")
    return numbers


def _member(choices: type[Enum], value: Any, key: str) -> Enum:
    words = [str(choice.value) for choice in choices]
    if value not in words:
        raise ConfigError(f"{key}={spelled(value)} must be one of {', '.join(words)}{nearest(str(value), words)}")
    return choices(value)


def spelled(value: Any) -> str:
    """As it is typed on a command line."""
    if isinstance(value, tuple):
        return f"[{','.join(map(spelled, cast('tuple[Any, ...]', value)))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def unknown(key: str, known: Sequence[str]) -> ConfigError:
    """The error that names the setting nearest to `key`, or the outermost ones if none is near."""
    there_are = ", ".join([name for name in known if "." not in name] or known)
    return ConfigError(f"there is no setting {key}" + (nearest(key, known) or f"; there are {there_are}"))


def nearest(word: str, words: Sequence[str]) -> str:
    """The question `did you mean ...?` with the nearest of `words`; empty if none is near. The whole dotted names are
    compared first, then their last parts."""
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    last = {known.rpartition(".")[2]: known for known in words}
    close = close or [last[name] for name in difflib.get_close_matches(word.rpartition(".")[2], list(last), n=1)]
    return f"; did you mean {close[0]}?" if close else ""
