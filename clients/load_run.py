"""Shell: one load, or a search for the largest that holds, from clips to the document."""

import asyncio
import platform
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from clients.client import StreamClient
from clients.load_capacity import CapacitySearch, Limits, objections
from clients.load_clips import BACKGROUND_SAMPLES, Clip, ClipStore
from clients.load_figures import CountWordErrors, LoadRun, level_figures
from clients.load_plan import LoadShape, SessionPlan, plan_load
from clients.load_processes import run_processes, shares
from clients.load_report import level_rows
from clients.load_session import Target
from clients.load_unloaded import decode_unloaded
from clients.load_view import LoadView, counted


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """How to load whom."""

    shape: LoadShape
    target: Target
    per_process: int
    decode_unloaded: bool


class LoadTest:
    """Runs loads of the same clips against one server; their figures gather in `levels`.

    Its methods raise PlanError, StreamError and LoadProcessError.
    """

    def __init__(
        self,
        settings: LoadSettings,
        clips: Sequence[Clip],
        store: ClipStore,
        count_word_errors: CountWordErrors | None,
        view: LoadView,
    ) -> None:
        self.levels: list[dict[str, Any]] = []
        self.model = ""  # known once `greet` has been answered
        self._settings = settings
        self._clips = clips
        self._store = store
        self._count_word_errors = count_word_errors
        self._view = view
        self._unloaded: dict[int, str] = {}

    def greet(self) -> None:
        """See that there is a server which takes a session, and what its model is."""
        self.model = asyncio.run(_model_of(self._settings.target))

    def run_level(self, sessions: int) -> dict[str, Any]:
        """One load; its figures."""
        settings = self._settings
        shape = replace(settings.shape, sessions=sessions)
        plans = plan_load(shape, self._store.clip_samples, BACKGROUND_SAMPLES)
        if settings.decode_unloaded:
            self._decode_unloaded(plans)
        self._view.begin(sessions)
        processes = run_processes(
            shares(plans, settings.per_process, self._store, settings.target), self._view.progress
        )
        run = LoadRun(
            plans=plans,
            clip_samples=self._store.clip_samples,
            transcripts=[clip.transcript for clip in self._clips],
            unloaded=self._unloaded,
            processes=processes,
            counts_from=shape.counts_from_s / settings.target.speed,
        )
        level = level_figures(run, self._count_word_errors)
        self.levels.append(level)
        return level

    def find_capacity(self, limits: Limits, most: int) -> int:
        """The largest load that holds, at most `most` sessions."""
        search = CapacitySearch(self._settings.shape.sessions, most)
        while (sessions := search.next) is not None:
            level = self.run_level(sessions)
            level["objections"] = objections(level, limits)
            search.tried(sessions, not level["objections"])
            (row,) = level_rows([level])
            _, p95, age, holds, why = row
            verdict = "holds" if holds == "yes" else f"does not hold: {why}"
            self._view.note(
                f"{counted(sessions, 'session')}: final p95 {p95}, oldest partial {age}: {verdict}"
            )
        return search.capacity

    def _decode_unloaded(self, plans: Sequence[SessionPlan]) -> None:
        """The yardstick for every clip that somebody will say whole and that has none yet."""
        lengths = self._store.clip_samples
        whole = {span.clip for plan in plans for span in plan.spans(lengths) if span.whole}
        missing = sorted(whole - self._unloaded.keys())
        if missing:
            self._view.note(f"Decoding {counted(len(missing), 'clip')} without load ...")
            audio = self._store.open()
            self._unloaded |= asyncio.run(decode_unloaded(audio, missing, self._settings.target))


async def _model_of(target: Target) -> str:
    async with StreamClient(target.url, target.start, api_key=target.api_key) as client:
        await client.stop()
        async for _ in client:
            pass
        return client.ready.model if client.ready else ""


def document_of(
    test: LoadTest,
    settings: Mapping[str, Any],
    clips: Mapping[str, Any],
    limits: Limits | None,
    capacity: int | None,
    began: datetime,
) -> dict[str, Any]:
    """Everything there is to know of a load test, as JSON can hold it."""
    return {
        "benchmark": "loadtest",
        "command": command_line(settings),
        "settings": dict(settings),
        "environment": {
            "began": began.astimezone(UTC).isoformat(timespec="seconds"),
            "machine": platform.platform(),
            "python": platform.python_version(),
        },
        "model": test.model,
        "clips": dict(clips),
        "limits": None
        if limits is None
        else {"p95_final_s": limits.p95_final_s, "max_age_s": limits.max_age_s},
        "capacity": capacity,
        "levels": test.levels,
    }


def command_line(settings: Mapping[str, Any]) -> str:
    """The command that these settings are given by; what is None or False was not given."""
    words = ["starling", "loadtest"]
    for name, value in settings.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(flag)
        elif isinstance(value, list):
            words += [flag, ",".join(value)]
        elif value is not None and value is not False:
            words += [flag, str(value)]
    return shlex.join(words)
