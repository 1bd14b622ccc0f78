"""The command `maskmill`: which command it hands over to, and what it says instead."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from jobs import maskmill
from pipeline import __version__
from pipeline.errors import WRONG_CONFIGURATION

JOBS = Path(maskmill.__file__).parent
NOT_FOR_USERS = {"draw_sample"}


def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["maskmill", *arguments])
    code = maskmill.main()
    out, err = capsys.readouterr()
    return code, out, err


def test_every_job_is_a_command() -> None:
    """A module with a main is one."""
    trees = {path.stem: ast.parse(path.read_text()) for path in JOBS.glob("*.py") if path.stem != "maskmill"}
    jobs = {
        name
        for name, tree in trees.items()
        if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body)
    }
    assert jobs - NOT_FOR_USERS == set(maskmill.COMMANDS)


@pytest.mark.parametrize("arguments", [(), ("--help",), ("help",)])
def test_help_lists_the_commands_and_a_sample_that_is_there(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    code, out, err = said(capsys, monkeypatch, *arguments)
    assert (code, err) == (0, "")
    assert all(f"  {name} " in out for name in maskmill.COMMANDS)
    assert Path(out.split("source=")[-1].split()[0]).is_file()


def test_its_version_is_the_packages(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert said(capsys, monkeypatch, "--version") == (0, f"Maskmill {__version__}\n", "")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("genrate", "Maskmill: there is no command genrate; did you mean generate?\n"),
        ("\x1b[2J", "Maskmill: there is no command \\x1b[2J; there are generate, look"),
    ],
)
def test_an_unknown_command_is_told_with_the_nearest(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str, sentence: str
) -> None:
    code, out, err = said(capsys, monkeypatch, name)
    assert (code, out) == (WRONG_CONFIGURATION, "")
    assert err.startswith(sentence)


def test_the_rest_of_the_line_is_the_commands_own(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = said(capsys, monkeypatch, "verify", "out=nowhere/at/all")
    assert code == WRONG_CONFIGURATION
    assert "nowhere/at/all" in err
