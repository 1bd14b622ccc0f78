"""Signals as interrupts and as a flag."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from pipeline.signals import SIGNALS, StopFlag


@pytest.mark.parametrize("number", SIGNALS)
def test_before_the_loop_a_signal_interrupts_and_is_remembered(number: signal.Signals):
    """Where Python swallows the interrupt, the loop still finds the count."""
    stop = StopFlag()
    with pytest.raises(KeyboardInterrupt), stop.interrupting():
        os.kill(os.getpid(), number)
    assert stop.signals == 1


@pytest.mark.parametrize("number", SIGNALS)
def test_in_the_loop_a_signal_is_only_counted(number: signal.Signals):
    """Chunks in flight finish; an exception in the middle of Ray's calls would abort them."""
    stop = StopFlag()
    with stop.interrupting(), stop.flagging():
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
    assert stop.signals == 2


def test_after_the_loop_signals_interrupt_again_and_in_the_end_are_the_callers():
    """The recount after the loop has no grace time; the process gets its own handlers back."""
    before = [signal.getsignal(number) for number in SIGNALS]
    stop = StopFlag()
    with stop.interrupting():
        with stop.flagging():
            pass
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert [signal.getsignal(number) for number in SIGNALS] == before


AFTER_RAY = """
import os, signal, sys
from jobs.command import run_command
from pipeline.cluster.ray_session import ray_session
from pipeline.signals import StopFlag
from pipeline.settings import Settings

def action(settings):
    stop = StopFlag()
    with stop.interrupting():
        with ray_session(ADDRESS), stop.flagging():
            pass
        os.kill(os.getpid(), signal.SIGTERM)
    return 0

ADDRESS = sys.argv.pop()
raise SystemExit(run_command("generate", Settings, action))
"""


def test_sigterm_after_a_ray_session_exits_130(cluster: str):
    """ray.init and ray.shutdown each install a handler of their own, whether they start Ray or join it: the recount
    must not run under it."""
    script = [sys.executable, "-c", AFTER_RAY, cluster]
    ended = subprocess.run(script, capture_output=True, text=True, timeout=200, check=False)
    assert ended.returncode == 130, ended.stderr
    assert "repeat the same command" in ended.stderr
