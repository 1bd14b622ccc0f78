"""From a command line to frozen settings, and from errors to an exit code. Hydra's objects do not leave this file.

Owns the strictness: an unknown key, or a value of another type, stops the job. The message says what was meant.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import MISSING, fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.errors import INTERRUPTED, UNFINISHED, WRONG_CONFIGURATION, ConfigError, MaskmillError
from pipeline.plain_values import nearest, spelled, to_settings, unknown
from pipeline.texts import LEFT_OUT, printable

S = TypeVar("S")

CONF = str(Path(__file__).resolve().parent.parent / "conf")
_INTERPOLATION = re.compile(r"(?<!\\)(?:\\\\)*\$\{")
_FROM_ENVIRONMENT = re.compile(r"\boc\.env:\s*([A-Za-z_][A-Za-z0-9_]*)")
SHORTEST_SECRET = 4
"""Characters; in place of fewer, half the words of a sentence would be replaced."""


def run_command(
    config_name: str, settings_type: type[S], action: Callable[[S], int], *, frozen: Collection[str] = ()
) -> int:
    """Compose conf/<config_name>.yaml with the command line, hand `action` its settings, return the exit code.

    frozen  settings that stand in the output, so that a value may not come from the environment, where secrets are
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A stream whose encoding lacks a character spells it: a finished run must not end in a traceback.
            stream.reconfigure(errors="backslashreplace")
    ConfigStore.instance().store(name="settings", node=plain_defaults(settings_type))
    # Without this Hydra prints its own errors and exits with 1. With it they arrive here as exceptions.
    os.environ["HYDRA_FULL_ERROR"] = "1"

    def task(config: DictConfig) -> None:
        sys.exit(_act(config, settings_type, action, frozen))

    try:
        check_overrides(sys.argv[1:], settings_type)
        hydra.main(version_base="1.3", config_path=CONF, config_name=config_name)(task)()
    except ConfigError as error:
        return _refuse(str(error))
    except (HydraException, OmegaConfBaseException) as error:
        return _refuse(_hydra_sentence(error))
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


def _act(config: DictConfig, settings_type: type[S], action: Callable[[S], int], frozen: Collection[str]) -> int:
    try:
        _refuse_interpolations(OmegaConf.to_container(config, resolve=False), frozen)
        values: Any = OmegaConf.to_container(config, resolve=True)
        return action(to_settings(settings_type, values))
    except ConfigError as error:
        return _refuse(str(error))
    except MaskmillError as error:
        sys.stderr.write(printable(unresolved(f"Maskmill stopped: {type(error).__name__}: {error}")) + "\n")
        return UNFINISHED
    except KeyboardInterrupt:
        sys.stderr.write("Maskmill: interrupted; repeat the same command to go on\n")
        return INTERRUPTED


def _refuse(sentence: str) -> int:
    sys.stderr.write(printable(unresolved(f"Maskmill: {sentence}")) + "\n")
    return WRONG_CONFIGURATION


def _refuse_interpolations(raw: Any, frozen: Collection[str], prefix: str = "") -> None:
    """raises  ConfigError for a frozen setting whose value is to come from elsewhere"""
    for name, value in raw.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict):
            _refuse_interpolations(value, frozen, f"{key}.")
        elif (
            isinstance(value, str)
            and _INTERPOLATION.search(value)
            and any(each == key or each.startswith(f"{key}.") for each in frozen)
        ):
            raise ConfigError(
                f"{key}={value}: the plan keeps this setting for everybody to read, so it takes nothing from the "
                "environment or from other settings; write its value out"
            )


def unresolved(text: str) -> str:
    """The text with what came from the environment under the name that it has on the command line."""
    for name in _FROM_ENVIRONMENT.findall(" ".join(sys.argv[1:])):
        value = os.environ.get(name, "")
        if len(value) >= SHORTEST_SECRET:
            text = text.replace(value, f"${{oc.env:{name}}}")
    return text


def plain_defaults(settings_type: type) -> dict[str, Any]:
    """The dataclass's defaults as a tree that Hydra can compose over."""
    return {name: _plain(value) for name, value in _default_values(settings_type)}


def _default_values(settings_type: type) -> Iterator[tuple[str, Any]]:
    for setting in fields(settings_type):
        factory = setting.default_factory
        yield setting.name, setting.default if factory is MISSING else factory()


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {setting.name: _plain(getattr(value, setting.name)) for setting in fields(value)}
    return str(value) if isinstance(value, StrEnum) else value


def known_keys(settings_type: type, prefix: str = "") -> list[str]:
    """Every key that may be overridden, as a dotted name. The names of groups are among them."""
    keys: list[str] = []
    hints = get_type_hints(settings_type)
    for setting in fields(settings_type):
        keys.append(prefix + setting.name)
        if is_dataclass(hints[setting.name]):
            keys += known_keys(hints[setting.name], f"{prefix}{setting.name}.")
    return keys


def check_overrides(arguments: Sequence[str], settings_type: type) -> None:
    """raises ConfigError for an override that cannot be read, or whose key is not a setting"""
    parser = OverridesParser.create()
    known = known_keys(settings_type)
    if {"-m", "--multirun"} & set(arguments):
        raise ConfigError(
            "one command is one run: repeat it with other settings and another out= instead of --multirun"
        )
    for argument in arguments:
        if argument.startswith("-"):
            continue
        if "=" not in argument or argument.startswith("~"):
            raise ConfigError(f"{argument!r} is no setting with a value: write name=value; --help lists the names")
        try:
            override = parser.parse_override(argument)
        except HydraException as error:
            raise _unreadable(argument, _first_line(error)) from error
        if override.is_sweep_override():
            raise _unreadable(argument, "a comma separates the values of a sweep")
        key = override.key_or_group
        if key == "model.name":
            raise ConfigError(f"write model={override.value()} instead of {argument}: thresholds come with the model")
        if key not in known and "/" not in key and not key.startswith("hydra"):
            raise unknown(key, known)
        _check_choice(key, override.value())


def _check_choice(key: str, value: Any) -> None:
    """Of the files of conf/<key>/; a mapping is no choice but sets several settings at once.

    raises  ConfigError as for any other setting that has a few words to choose from
    """
    words = sorted(path.stem for path in Path(CONF, key).glob("*.yaml"))
    if words and value not in words and not isinstance(value, dict):
        raise ConfigError(
            f"{key}={spelled(value)} must be one of {', '.join(words)}{nearest(str(value).lower(), words)}"
        )


def _unreadable(argument: str, why: str) -> ConfigError:
    key, _, value = argument.partition("=")
    if "@" in value:
        argument, why, value = f"{key}={LEFT_OUT}", "its value is left out here: it may hold a password", "..."
    return ConfigError(
        f"cannot read the override {argument!r} ({why}); put text with special characters into double quotes: "
        f"'{key}=\"{value}\"'"
    )


def _hydra_sentence(error: BaseException) -> str:
    """Hydra's message on one line, with its cause."""
    said = " ".join(str(error).split())
    cause = " ".join(str(error.__cause__).split()) if error.__cause__ is not None else ""
    return f"{said} ({cause})" if cause and cause not in said else said


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0]
