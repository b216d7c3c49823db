"""One line per event: a constant event name and fields; a job's id is bound once per attempt."""

import logging
import sys
from typing import Literal

import structlog

LogFormat = Literal["console", "json"]

_SECRET_WORDS = ("key", "secret", "password", "token", "authorization")


def _hide_secrets(
    _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Blank every field whose name says that it is a secret, whoever logged it."""
    for name in event:
        if any(word in name.lower() for word in _SECRET_WORDS) and not name.endswith(("_id", "_prefix")):
            event[name] = "[hidden]"
    return event


def configure(*, log_format: LogFormat, level: str) -> None:
    """Send our records and those of every library to stderr in one format; call it once per process."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _hide_secrets,
    ]
    render: list[structlog.typing.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if log_format == "json"
        # Plain tracebacks: rich ones print local variables, and with them keys.
        else [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Alembic and the servers' access logs say at INFO what our own events already say.
    for chatty in ("alembic", "urllib3", "celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # It would tell whole URLs, signatures included, of hosts whose headers are malformed.
    logging.getLogger("urllib3.connection").setLevel(logging.ERROR)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Give the logger of a module; fields are passed as keyword arguments to its methods."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger(name)
    return logger
