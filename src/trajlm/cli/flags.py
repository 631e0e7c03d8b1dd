"""Flags from dataclasses: tyro parses, and every complaint becomes one line with exit code 2."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar, get_type_hints

from trajlm.core.errors import UsageError, suggestion

T = TypeVar("T")
HELP = ("-h", "--help")


def parse(
    cls: type[T],
    argv: Sequence[str],
    *,
    prog: str,
    description: str = "",
    default: T | None = None,
    aliases: Mapping[str, str] | None = None,
) -> T:
    """`argv` as the dataclass `cls`; nested dataclasses are dotted flags.

    `aliases` maps a short flag to the full one. Raises `UsageError` (one line, the nearest name
    for an unknown flag) and `SystemExit(0)` after `--help`, which goes to stdout.
    """
    import tyro

    arguments = [_expand(token, aliases or {}) for token in argv]
    if not any(token in HELP for token in arguments):
        _refuse_unknown(arguments, [*known_flags(cls), *(aliases or {})], prog)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                cls,
                args=arguments,
                prog=prog,
                description=description,
                default=tyro.MISSING_NONPROP if default is None else default,
                # Comments are for the reader of the source; reading them takes a tenth of a second.
                config=(tyro.conf.HelptextFromCommentsOff,),
            )
    except SystemExit as stop:
        if not stop.code:
            sys.stdout.flush()
            raise
        raise UsageError(_one_line(complaint.getvalue(), prog)) from None


def known_flags(cls: Any, prefix: str = "--") -> Iterator[str]:
    """Every flag of a dataclass, with dashes: `--training.steps`, `--training.no-tensorboard`."""
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        hint, name = hints[field.name], field.name.replace("_", "-")
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            yield from known_flags(hint, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
            if hint is bool:
                yield f"{prefix}no-{name}"


def _expand(token: str, aliases: Mapping[str, str]) -> str:
    flag, equals, value = token.partition("=")
    return f"{aliases.get(flag, flag)}{equals}{value}"


def _refuse_unknown(argv: Sequence[str], known: Sequence[str], prog: str) -> None:
    for token in argv:
        flag = token.partition("=")[0].replace("_", "-")
        if flag.startswith("--") and len(flag) > 2 and flag not in known:
            near = suggestion(flag, known) or _last_part(flag, known) or f"; see {prog} --help"
            raise UsageError(f"unknown flag {flag!r}{near}")


def _last_part(flag: str, known: Sequence[str]) -> str:
    """`--learning-rate` is near `--training.learning-rate`, whatever stands before the dot."""
    ends = {name.split(".")[-1].lstrip("-"): name for name in known}
    near = suggestion(flag.split(".")[-1].lstrip("-"), ends)
    return f"; did you mean {ends[near.split(chr(39))[1]]!r}?" if near else ""


def _one_line(text: str, prog: str) -> str:
    """The first paragraph of tyro's box, without the box."""
    words: list[str] = []
    for line in text.splitlines()[1:]:
        inner = line.strip("│|+ ")
        if not set(inner) <= set("─-╯╰╭╮"):
            words.append(inner)
        elif words:  # where stdout is not UTF-8 a rule stands under the title too
            break
    return " ".join(words) or f"wrong arguments; see {prog} --help"
