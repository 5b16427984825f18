"""What the engine counts, as plain numbers; whoever exports them reads, nobody else writes."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class StepMetrics:
    """Steps of one kind."""

    count: int = 0
    rows: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class EngineMetrics:
    """Totals since the engine started. Written only by the engine thread."""

    steps: dict[str, StepMetrics] = field(default_factory=dict)
    tokens: int = 0  # of hypotheses, forced prefixes not counted
    drafted: int = 0
    accepted: int = 0
    partials: int = 0
    finals: int = 0
    retries: int = 0
    failures: int = 0

    def record_step(self, kind: str, rows: int, seconds: float) -> None:
        """Count one step."""
        metrics = self.steps.setdefault(kind, StepMetrics())
        metrics.count += 1
        metrics.rows += rows
        metrics.seconds += seconds
