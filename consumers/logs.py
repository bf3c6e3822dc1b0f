"""Logs: one line an event, with its fields, for people or as JSON. No log call raises, blocks or tells a secret."""

import atexit
import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TextIO, cast

import structlog

from broker.settings import Settings
from consumers.background_writer import BackgroundWriter
from consumers.redaction import Redactor, redactor_of

Line = Callable[[object, str, structlog.typing.EventDict], str]


def configure_logs(settings: Settings) -> None:
    """Send all logs to standard error, as the settings ask. Libraries speak from warnings on."""
    level = getattr(logging, settings.log_level.upper())
    redact = redactor_of(settings)
    line = _line(_processors(settings.log_format == "json"), redact)

    def lost(lines: int, why: str) -> str:
        return line(None, "warning", {"event": "log.lost", "lines": lines, "reason": why}) + "\n"

    stream = in_background(sys.stderr, lost)
    # Python itself writes there too, of a finalizer that failed for example.
    sys.stderr = stream
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, line],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Redacting("%(name)s: %(message)s", redact))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    # A library's log call that cannot be put in words would have its traceback printed.
    logging.raiseExceptions = False
    # An outage is told once, by our own connection loop; the client's lines would repeat it for every channel. And
    # what is no HTTP is answered by the HTTP server with a 400, which needs no traceback of ours for each scanner.
    for name in ("aio_pika", "aiormq", "aiohttp.server"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def in_background(stream: TextIO, notice: Callable[[int, str], str]) -> TextIO:
    """Return a stream in place of another whose writes neither block nor raise; it is written until the end."""
    with suppress(OSError):
        stream.flush()
    try:
        writer = BackgroundWriter(stream, notice)
    except (OSError, AttributeError):
        # Not a file of the system's: whoever put it there reads it in this process.
        return stream
    atexit.register(writer.close)
    return cast(TextIO, writer)


def _processors(as_json: bool) -> Sequence[structlog.typing.Processor]:
    if as_json:
        # Without the frames' local variables, which hold users' messages and secrets.
        tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        return (
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.ExceptionRenderer(tracebacks),
            structlog.processors.JSONRenderer(),
        )
    return (
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper("%H:%M:%S", utc=False),
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        ),
    )


def _line(processors: Sequence[structlog.typing.Processor], redact: Redactor) -> Line:
    """Return what makes a line of an event, and never raises."""

    def line(logger: object, method: str, event: structlog.typing.EventDict) -> str:
        told = str(event.get("event"))
        try:
            made: object = event
            for processor in processors:
                made = processor(logger, method, cast(structlog.typing.EventDict, made))
            return redact(str(made))
        except Exception as error:
            return redact(f"{told} (its fields cannot be written: {type(error).__name__})")

    return line


class _Redacting(logging.Formatter):
    def __init__(self, template: str, redact: Redactor) -> None:
        super().__init__(template)
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        return self._redact(super().format(record))
