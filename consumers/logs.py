"""Logs: one line an event, with its fields, for people or as JSON."""

import logging
import sys

import structlog

from broker.settings import Settings


def configure_logs(settings: Settings) -> None:
    """Send all logs to standard error, as the settings ask. Libraries speak from warnings on."""
    level = getattr(logging, settings.log_level.upper())
    as_json = settings.log_format == "json"
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True)
        if as_json
        else structlog.processors.TimeStamper("%H:%M:%S", utc=False),
    ]
    renderer: list[structlog.typing.Processor] = (
        [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
        if as_json
        else [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    )
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s", stream=sys.stderr)
    # An outage is told once, by our own connection loop; the client's lines would repeat it for every channel. And
    # what is no HTTP is answered by the HTTP server with a 400, which needs no traceback of ours for each scanner.
    for name in ("aio_pika", "aiormq", "aiohttp.server"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
