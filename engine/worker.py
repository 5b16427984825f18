"""Hosts the engine's loop in a thread that owns the device; the only file that knows of threads.

Commands go in through a mailbox from any thread, events come out on the engine thread, each to
the listener of its utterance. When the engine is to live in a process of its own, this file is
what changes.
"""

import contextlib
import itertools
import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from engine.assembly import Engine, build_engine
from engine.config import EngineConfig
from engine.errors import EngineStoppedError
from engine.events import (
    AppendAudio,
    CancelUtterance,
    Command,
    EngineEvent,
    FinishUtterance,
    ModelInfo,
    OpenUtterance,
    PauseUtterance,
    UtteranceFailed,
    UtteranceFinished,
    UtteranceId,
)
from engine.loop import Loop
from engine.metrics import EngineMetrics

logger = logging.getLogger(__name__)

_ENGINE_NICENESS: Final = 5  # a third of the weight of a thread at 0

Listener = Callable[[EngineEvent], None]


class Worker:
    """The engine as the rest of the program sees it. Every method may be called from any thread.

    Listeners are called on the engine thread and must return at once.
    """

    def __init__(
        self, config: EngineConfig, build: Callable[[EngineConfig], Engine] = build_engine
    ) -> None:
        self._config = config
        self._build = build
        self._thread = threading.Thread(target=self._run, name="starling-engine", daemon=True)
        self._ids = itertools.count(1)
        self._condition = threading.Condition()
        self._mailbox: deque[Command] = deque()  # bounded by the sessions' own flow control
        self._listeners: dict[UtteranceId, Listener] = {}
        self._stopping = False
        self._ready = threading.Event()
        self._engine: Engine | None = None
        self._failure: BaseException | None = None
        self._failure_callbacks: list[Callable[[Exception], None]] = []

    def start(self) -> None:
        """Load the model in the engine thread and warm it up; returns when it is ready.

        Raises what loading raised.
        """
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure

    @property
    def info(self) -> ModelInfo:
        """The loaded model."""
        return self._running.info

    @property
    def metrics(self) -> EngineMetrics:
        """Counters of the running engine; to be read only."""
        return self._running.metrics

    @property
    def _running(self) -> Engine:
        if self._engine is None:
            raise EngineStoppedError("the engine has not been started")
        return self._engine

    def on_failure(self, callback: Callable[[Exception], None]) -> None:
        """Have `callback` told, on the engine thread, what the engine failed with.

        At once, and on the caller's own, where that has happened already.
        """
        with self._condition:
            failure = self._failure
            self._failure_callbacks.append(callback)
        if isinstance(failure, Exception):
            callback(failure)

    def new_utterance_id(self) -> UtteranceId:
        """An id that no other utterance has."""
        return UtteranceId(next(self._ids))

    def open(self, command: OpenUtterance, listener: Listener) -> None:
        """Open an utterance whose events `listener` gets."""
        with self._condition:
            self._check_running()
            self._listeners[command.utterance_id] = listener
            self._mailbox.append(command)
            self._condition.notify()

    def submit(
        self, command: AppendAudio | PauseUtterance | FinishUtterance | CancelUtterance
    ) -> None:
        """Send a command of an open utterance. After a cancel its listener hears nothing more."""
        with self._condition:
            self._check_running()
            if isinstance(command, CancelUtterance):
                self._listeners.pop(command.utterance_id, None)
            self._mailbox.append(command)
            self._condition.notify()

    def stop(self) -> None:
        """End the engine thread after the step in progress; what is unfinished stays so."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()

    def _check_running(self) -> None:
        if self._stopping or self._failure is not None or self._engine is None:
            raise EngineStoppedError("the engine is not running")

    def _run(self) -> None:
        _yield_to_others()
        try:
            self._engine = self._build(self._config)
        except BaseException as exc:  # noqa: BLE001 - handed to start(), which raises it
            self._failure = exc
            return
        finally:
            self._ready.set()
        loop = Loop(self._engine, self._publish)
        try:
            while self._wait_for_work(loop):
                pass
        except Exception as exc:
            logger.exception("the engine failed")
            self._fail(exc)

    def _fail(self, failure: Exception) -> None:
        """Nothing can be decoded any more: tell the callbacks, and end every open utterance."""
        with self._condition:
            self._failure = failure
            listeners, self._listeners = self._listeners, {}
            callbacks = tuple(self._failure_callbacks)
        for callback in callbacks:
            callback(failure)
        message = f"the engine failed: {type(failure).__name__}: {failure}"
        for utterance_id, listener in listeners.items():
            listener(UtteranceFailed(utterance_id, message))

    def _wait_for_work(self, loop: Loop) -> bool:
        """Take what is in the mailbox and run a step; sleep when both are empty."""
        with self._condition:
            if self._stopping:
                return False
            commands = tuple(self._mailbox)
            self._mailbox.clear()
        loop.take(commands)
        if not loop.run_step():
            with self._condition:
                self._condition.wait_for(lambda: self._mailbox or self._stopping)
        return True

    def _publish(self, event: EngineEvent) -> None:
        ends = isinstance(event, UtteranceFinished | UtteranceFailed)
        with self._condition:
            take = self._listeners.pop if ends else self._listeners.get
            listener = take(event.utterance_id, None)
        if listener is not None:
            listener(event)


def _yield_to_others() -> None:
    """Lower the calling thread's priority, and with it that of the threads it starts.

    Sockets and the detector need little time, but at once: on a saturated machine an engine of
    equal rank delays the end of speech by seconds, and every final with it (docs/log.md).
    """
    if sys.platform == "linux":  # where a priority is a thread's own
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _ENGINE_NICENESS)
