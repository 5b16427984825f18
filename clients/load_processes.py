"""Shell: the processes that generate a load, and the word they send of how it goes.

Sessions never live in the process of the command: what it draws on the terminal must not delay
the audio it measures with. Processes are spawned, begin at one common reading of the machine's
monotonic clock, and send progress and at last their record through a pipe.
"""

import asyncio
import gc
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Final

from clients.load_clips import ClipStore
from clients.load_figures import ProcessRecord
from clients.load_plan import SessionPlan
from clients.load_session import SimulatedSession, Tally, Target

PROGRESS_S: Final = 0.5  # as often as a person can follow
HEAD_START_S: Final = 0.1  # from the word to begin until everybody has heard it


class LoadProcessError(Exception):
    """A generating process died; the message says how."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one process generates."""

    plans: tuple[SessionPlan, ...]
    store: ClipStore
    target: Target


@dataclass(frozen=True, slots=True)
class Progress:
    """How one process's sessions fare; durations are new since the last progress."""

    num_open: int = 0
    num_ended: int = 0
    num_failed: int = 0
    num_refused: int = 0
    num_finals: int = 0
    final_beyond_endpoint_s: tuple[float, ...] = ()
    partial_age_s: tuple[float, ...] = ()


def shares(
    plans: Sequence[SessionPlan], per_process: int, store: ClipStore, target: Target
) -> list[Share]:
    """As few processes as carry `per_process` sessions each at most, dealt like cards."""
    num_processes = -(-len(plans) // per_process)
    return [Share(tuple(plans[n::num_processes]), store, target) for n in range(num_processes)]


def run_processes(
    work: Sequence[Share], on_progress: Callable[[int, Progress], None]
) -> list[ProcessRecord]:
    """Generate the load; `on_progress` is told of which process and how it fares.

    Raises LoadProcessError.
    """
    context = multiprocessing.get_context("spawn")
    processes: list[SpawnProcess] = []
    pipes: list[Connection] = []
    try:
        for share in work:
            here, there = context.Pipe()
            process = context.Process(target=_generate, args=(share, there), daemon=True)
            process.start()
            there.close()  # so that the end of the process ends the pipe
            processes.append(process)
            pipes.append(here)
        for process, pipe in zip(processes, pipes, strict=True):
            _receive(process, pipe)  # it has loaded what it needs
        begun = time.monotonic() + HEAD_START_S
        for pipe in pipes:
            pipe.send(begun)
        return _collect(processes, pipes, on_progress)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()
        for pipe in pipes:
            pipe.close()


def _collect(
    processes: Sequence[SpawnProcess],
    pipes: Sequence[Connection],
    on_progress: Callable[[int, Progress], None],
) -> list[ProcessRecord]:
    records: dict[int, ProcessRecord] = {}
    while len(records) < len(pipes):
        waiting = [pipe for number, pipe in enumerate(pipes) if number not in records]
        for ready in wait(waiting):
            number = next(n for n, pipe in enumerate(pipes) if pipe is ready)
            match _receive(processes[number], pipes[number]):
                case ProcessRecord() as record:
                    records[number] = record
                case Progress() as progress:
                    on_progress(number, progress)
    return [records[number] for number in range(len(pipes))]


def _receive(process: SpawnProcess, pipe: Connection) -> object:
    try:
        return pipe.recv()
    except EOFError as exc:
        process.join()
        raise LoadProcessError(
            f"a process that generates load ended with status {process.exitcode}"
        ) from exc


def _generate(share: Share, pipe: Connection) -> None:
    """A generating process, from its first line to its last."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command, which ends us
    pipe.send(None)
    begun: float = pipe.recv()
    gc.freeze()  # what was imported never becomes garbage
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        pipe.send(runner.run(generate(share, begun, pipe.send)))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The loop that costs the machine under test least."""
    try:
        import uvloop
    except ImportError:  # not made for Windows
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


async def generate(
    share: Share,
    begun: float,
    report: Callable[[Progress], None],
    report_every_s: float = PROGRESS_S,
) -> ProcessRecord:
    """Run the sessions of one process, all at once."""
    audio, tally = share.store.open(), Tally()
    sessions = [
        SimulatedSession(plan, audio.chunks(plan), share.target, tally, begun)
        for plan in share.plans
    ]
    await asyncio.sleep(begun - time.monotonic())
    cpu_s, began = time.process_time(), time.monotonic()
    news = _news(sessions, tally)
    running = {asyncio.create_task(session.run()) for session in sessions}
    while running:
        ended, running = await asyncio.wait(running, timeout=report_every_s)
        for task in ended:
            task.result()  # what a session does not expect is a fault of this program
        report(next(news))
    return ProcessRecord(
        sessions=[session.meter.record for session in sessions],
        wall_s=time.monotonic() - began,
        cpu_s=time.process_time() - cpu_s,
        lateness=tally.lateness,
        blocked_s=tally.blocked_s,
    )


def _news(sessions: Sequence[SimulatedSession], tally: Tally) -> Iterator[Progress]:
    """How things stand whenever it is asked, with the samples not told before."""
    told: dict[tuple[int, str], int] = {}

    def untold(metric: str) -> tuple[float, ...]:
        found: list[float] = []
        for session in sessions:
            key = (session.plan.number, metric)
            samples = session.meter.record.samples[metric]
            found += (value for _, value in samples[told.get(key, 0) :])
            told[key] = len(samples)
        return tuple(found)

    while True:
        ended = [session.meter.record for session in sessions if session.ended]
        yield Progress(
            num_open=tally.num_open,
            num_ended=len(ended),
            num_failed=sum(record.outcome == "failed" for record in ended),
            num_refused=sum(record.outcome == "refused" for record in ended),
            num_finals=sum(len(session.meter.record.heard) for session in sessions),
            final_beyond_endpoint_s=untold("final_beyond_endpoint_s"),
            partial_age_s=untold("partial_age_s"),
        )
