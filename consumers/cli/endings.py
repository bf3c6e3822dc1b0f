"""How a command ends that could not do its work: one line, whatever happened; and streams that bear any text."""

import errno
import os
import sys
import traceback
from contextlib import suppress
from pathlib import Path

from broker.errors import PostboteError
from consumers.cli.safe_text import line, plain

#: What writing to standard output says, which is no file with a name, where nothing more goes into it.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
#: What a line of an error that nobody expected may hold, in characters.
LONGEST = 500


def prepare_streams() -> None:
    """Make standard input, output and error such that no text and no missing stream ends a command."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # Closed by the program that started this one. The next file that is opened would take its number, and
            # would be written what is meant for the terminal.
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False))
        if number:
            with suppress(OSError):
                os.set_blocking(number, True)
            # A terminal may lack any of our signs, and what users write.
            reconfigure = getattr(getattr(sys, name), "reconfigure", None)
            if reconfigure is not None:
                reconfigure(errors="backslashreplace")


def tell(error: BaseException) -> None:
    """Write to standard error what ended the command, in one line and without a secret."""
    whole = error
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    # A disk that is full, or nobody who reads: there is nobody to tell.
    with suppress(OSError):
        if isinstance(error, PostboteError):
            _paint(plain(error))
        elif isinstance(error, OSError) and error.errno in _NO_ROOM and error.filename is None:
            _paint(f"Standard output cannot be written: {error.strerror}.")
        else:
            _tell_unexpected(error, whole)
    _let_go_of_output()


def _tell_unexpected(error: BaseException, whole: BaseException) -> None:
    from consumers.redaction import Redactor, redactor_of

    redact, debug = Redactor(), False
    with suppress(Exception):
        from broker.settings import read_settings

        settings = read_settings()
        redact, debug = redactor_of(settings), settings.log_level == "debug"
    if debug:
        sys.stderr.write(redact("".join(traceback.format_exception(whole))))
    said = line(redact(str(error)))[:LONGEST]
    _paint(
        f"Postbote ended by an error that it did not expect: {type(error).__name__}{': ' if said else ''}{said} "
        f"({_place(error)}). POSTBOTE_LOG_LEVEL=debug shows all of it."
    )


def _place(error: BaseException) -> str:
    """Name the last place in code of ours that the error came through."""
    root = Path(__file__).parent.parent.parent
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        if any(file.is_relative_to(root / package) for package in ("broker", "consumers")):
            return f"{file.relative_to(root)}, line {frame.lineno}"
    return "in no code of its own"


def _paint(text: str) -> None:
    from rich.console import Console
    from rich.text import Text

    Console(stderr=True, soft_wrap=True, highlight=False).print(Text(text, style="red"))


def _let_go_of_output() -> None:
    # What could not be written would be tried once more at the end of the interpreter, and fail with a traceback.
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
