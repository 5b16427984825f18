"""How the server's log looks: lines for people, or one JSON object per line for machines.

A record may carry figures: `logger.info("session ended", extra={"fields": {...}})`. People get
them as key=value behind the message, machines as keys of the object.
"""

import json
import logging
from datetime import UTC, datetime
from typing import Any, Literal

LogFormat = Literal["text", "json"]


def formatter_of(form: LogFormat) -> logging.Formatter:
    """What formats every record of the process."""
    return JsonFormatter() if form == "json" else TextFormatter()


class TextFormatter(logging.Formatter):
    """`2026-11-21 04:43:12,345 INFO session ended session=… audio_s=12.5`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's own name
        """The line, without what an exception adds below it."""
        pairs = (f"{key}={_plain(value)}" for key, value in _fields(record).items())
        return " ".join([super().formatMessage(record), *pairs])


class JsonFormatter(logging.Formatter):
    """One object per line: time (UTC, ISO 8601), level, logger, message, then the figures."""

    def format(self, record: logging.LogRecord) -> str:
        """A whole record; an exception's traceback is one string."""
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        # A field cannot take the place of what every line has.
        return json.dumps({**told, **_fields(record), **told}, ensure_ascii=False, default=str)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields: dict[str, Any] = getattr(record, "fields", {})
    return fields


def _plain(value: object) -> str:
    """A value as one word: quoted where it would not be one."""
    if value is None:
        return "-"
    text = str(value)
    is_word = text.split() == [text] and not {'"', "="} & set(text)
    return text if is_word else json.dumps(text, ensure_ascii=False)
