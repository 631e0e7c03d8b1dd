"""The program `trajlm`: a table of commands, each imported only when it is called.

stdout carries results, stderr logs and progress. Every expected failure is one line on stderr and
the exit code of its error; `--verbose` or TRAJLM_DEBUG=1 shows the traceback.
"""

from __future__ import annotations

import _thread
import importlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from trajlm import __version__
from trajlm.core.errors import TrajlmError, UsageError, suggestion

COMMANDS = {
    "list": ("trajlm.cli.listing", "algorithms, recipes, datasets and environments"),
    "collect": ("trajlm.cli.collect", "a dataset from the behaviours shipped with the package"),
    "data": ("trajlm.cli.data", "show what is in a dataset, check what is wrong with it"),
    "train": ("trajlm.cli.train", "train a recipe on a dataset and evaluate it"),
    "evaluate": ("trajlm.cli.evaluate", "evaluate a run at target returns"),
    "plan": ("trajlm.cli.plan", "show all plans of one step beside what truly happens"),
    "report": ("trajlm.cli.report", "one HTML page of one or more runs"),
    "convert": ("trajlm.cli.convert", "models to and from Hugging Face's form"),
    "demo": ("trajlm.cli.demo", "data, training, scores, plans, video and report in one command"),
    "reproduce": ("trajlm.cli.reproduce", "published experiments, each with its picture"),
    "bench": ("trajlm.cli.bench", "measure speed against the published implementations"),
    "doctor": ("trajlm.cli.doctor", "what this machine has and what is missing"),
}
DEBUG_VARIABLE = "TRAJLM_DEBUG"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the process's exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _forgive_narrow_encodings()
    try:
        with _ending_on_sigterm(), _no_signal_lost():
            return _run(arguments)
    except BrokenPipeError:
        # `trajlm list | head`: the reader has what it wanted. Point stdout away from the closed
        # pipe, so that the interpreter's last flush finds nothing to complain about.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return _explain(error, verbose="--verbose" in arguments)
    except KeyboardInterrupt:
        print("trajlm: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if arguments[0] in ("--version", "-V"):
        print(f"trajlm {__version__}")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        near = suggestion(name, COMMANDS) or f"; commands: {', '.join(COMMANDS)}"
        raise UsageError(f"unknown command {name!r}{near}")
    try:
        return int(importlib.import_module(COMMANDS[name][0]).main(rest) or 0)
    except SystemExit as stop:  # tyro, after --help
        return int(stop.code or 0)
    finally:
        sys.stdout.flush()


@contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """SIGTERM unwinds like an exit, with status 143; training has its own way to stop."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _no_signal_lost() -> Iterator[None]:
    """A signal that arrives inside a destructor or a weak reference's callback raises there, where
    Python prints and drops it; it is sent once more, a moment later."""
    before = sys.unraisablehook

    def send_again(dropped: sys.UnraisableHookArgs) -> None:
        error = dropped.exc_value
        if isinstance(error, KeyboardInterrupt):
            number = signal.SIGINT
        elif isinstance(error, SystemExit) and error.code == 128 + signal.SIGTERM:
            number = signal.SIGTERM
        else:
            before(dropped)
            return
        threading.Timer(0.05, _thread.interrupt_main, (number,)).start()

    sys.unraisablehook = send_again
    try:
        yield
    finally:
        sys.unraisablehook = before


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: trajlm COMMAND [...]",
            "",
            "Reinforcement learning as language modelling of trajectories.",
            "",
            *lines,
            "",
            "trajlm COMMAND --help shows a command's flags.",
            "Exit codes: 0 ok, 1 unexpected, 2 usage, 3 bad data, 4 bad checkpoint,",
            "5 environment fault, 6 diverged, 7 storage, 130 SIGINT, 143 SIGTERM.",
        ]
    )


def _explain(error: Exception, *, verbose: bool) -> int:
    if verbose or os.environ.get(DEBUG_VARIABLE):
        traceback.print_exception(error)
    if isinstance(error, TrajlmError):
        print(f"trajlm: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    text = " ".join(str(error).split())[:300]
    print(
        f"trajlm: unexpected {type(error).__name__}: {text} "
        f"(set {DEBUG_VARIABLE}=1 for the traceback, and please report it)",
        file=sys.stderr,
    )
    return 1


def _forgive_narrow_encodings() -> None:
    """A terminal that cannot show a character shows `?` instead of a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


if __name__ == "__main__":
    sys.exit(main())
