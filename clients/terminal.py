"""How a transcript looks in a terminal, in a pipe, and as JSON lines."""

from types import TracebackType
from typing import Protocol, Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from stream_server.protocol import (
    CODECS,
    JSON_SUBPROTOCOL,
    Final,
    Partial,
    ServerMessage,
    WarningMessage,
)


class Display(Protocol):
    """Shows messages as they come; a context, as a live line has to be taken down again."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def show(self, message: ServerMessage) -> None:
        """Show one message, or nothing where it has nothing for a reader."""


def choose_display(out: TextIO, *, as_json: bool, partials: bool) -> Display:
    """JSON lines where asked for, else a live view on a terminal and plain lines in a pipe."""
    if as_json:
        return JsonLines(out)
    if out.isatty():
        return LiveTranscript(Console(file=out, highlight=False))
    return PlainLines(out, partials=partials)


def times(start: float, end: float) -> str:
    """`[0:01.2 - 0:03.4]`, the same width for a whole hour."""
    return f"[{_clock(start)} - {_clock(end)}]"


def _clock(seconds: float) -> str:
    minutes, tenths = divmod(round(seconds * 10), 600)
    return f"{minutes:2d}:{tenths // 10:02d}.{tenths % 10}"


class _Lines:
    """What the two line-by-line displays share: an output that is flushed line by line."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._out.flush()

    def _line(self, text: str) -> None:
        print(text, file=self._out, flush=True)


class JsonLines(_Lines):
    """Every message as the protocol's JSON, one per line, whatever the connection speaks."""

    def show(self, message: ServerMessage) -> None:
        """Every message, whatever it is."""
        frame = CODECS[JSON_SUBPROTOCOL].encode(message)
        self._line(frame if isinstance(frame, str) else frame.decode())


class PlainLines(_Lines):
    """One line per final that has text, and per partial where asked for (marked with `~`)."""

    def __init__(self, out: TextIO, *, partials: bool = False) -> None:
        super().__init__(out)
        self._partials = partials

    def show(self, message: ServerMessage) -> None:
        """Messages that have nothing for a reader leave no line."""
        match message:
            case Final(start=start, end=end, text=text) if text.strip():
                self._line(f"{times(start, end)} {text.strip()}")
            case Partial(start=start, end=end, text=text) if self._partials:
                self._line(f"{times(start, end)} ~ {text.strip()}")
            case WarningMessage(message=sentence):
                self._line(f"# {sentence}")
            case _:
                pass


class LiveTranscript:
    """Finals as lines that stay; below them the current partial, its revisable tail dimmed."""

    def __init__(self, console: Console) -> None:
        self._console = console
        # Refreshed by hand: a message is the only thing that changes the picture.
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()

    def show(self, message: ServerMessage) -> None:
        """Messages that have nothing for a reader change nothing."""
        match message:
            case Final(start=start, end=end, text=text):
                self._live.update(Text(""), refresh=True)
                if text.strip():
                    line = Text.assemble((times(start, end), "cyan"), " ", text.strip())
                    self._console.print(line)
            case Partial(start=start, end=end, text=text, stable_text=stable):
                line = Text.assemble((times(start, end), "dim cyan"), " ", stable.lstrip())
                tail = text[len(stable) :]
                line.append(tail if stable else tail.lstrip(), style="dim")
                self._live.update(line, refresh=True)
            case WarningMessage(message=sentence):
                self._console.print(Text(sentence, style="yellow"))
            case _:
                pass
