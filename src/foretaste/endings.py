"""How the command line ends: well, or with a line or two that say what was wrong, and an exit status.

0 well; 2 an error that the line explains; 1 a fault of Foretaste itself; 130 interrupted.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import NoReturn

from cyclopts import CycloptsError

from foretaste.errors import ForetasteError

RESUMED = ("train", "compare", "tune", "reproduce", "merge")
"""Commands that go on where they were stopped when the same one is given again."""
FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS)
"""Errors of a disk on which nothing can be written, or no more."""


def end(error: BaseException | None = None, *, command: str = "", debug: bool = False) -> NoReturn:
    """Say what there is to say on standard error, and exit; with `debug` the error is raised again instead."""
    text, status = said(error, command)
    if error is not None and status in (1, 2) and debug:
        raise error
    if text:
        start = "\r\033[K" if sys.stderr.isatty() else ""  # over a line of progress
        print(f"{start}foretaste: {text}", file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:  # else Python would try again, and complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)


def said(error: BaseException | None, command: str = "") -> tuple[str, int]:
    """The words and the exit status of an error that ended a command."""
    line = " ".join(str(error).split())
    match error:
        case None | BrokenPipeError():  # whoever read our output has seen enough; progress may break (progress.tell)
            return "", 0
        case KeyboardInterrupt():
            more = "; run the same command again and it goes on" if command in RESUMED else ""
            return line or f"interrupted{more}", 130
        case CycloptsError():
            return f"{line} (see {' '.join(['foretaste', *(error.command_chain or ()), '--help'])})", 2
        case ForetasteError():
            lines = str(error).splitlines() or [type(error).__name__]
            return "\n".join(lines[:2]) + (f" (and {len(lines) - 2} more)" if len(lines) > 2 else ""), 2
        case OSError():
            more = "; free some space, or choose another folder" if error.errno in FULL else ""
            return f"{error.filename or 'output'}: {error.strerror or line}{more}", 2
    if isinstance(error, MemoryError) or "allocate memory" in line or "out of memory" in line:
        return f"not enough memory ({line.split('Allocator: ')[-1][:200]}); choose smaller sizes or a smaller batch", 2
    return f"unexpected {type(error).__name__}: {line[:300]}\nPlease report it, with what --debug prints.", 1
