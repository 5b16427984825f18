from engine.metrics import EngineMetrics, StepMetrics


def test_steps_add_up_by_kind() -> None:
    metrics = EngineMetrics()
    metrics.record_step("DecodeStep", 3, 0.5)
    metrics.record_step("DecodeStep", 4, 0.25)
    metrics.record_step("EncodeStep", 1, 1.0)
    assert metrics.steps == {
        "DecodeStep": StepMetrics(count=2, rows=7, seconds=0.75),
        "EncodeStep": StepMetrics(count=1, rows=1, seconds=1.0),
    }


def test_two_engines_count_apart() -> None:
    EngineMetrics().record_step("DecodeStep", 1, 0.1)
    assert EngineMetrics().steps == {}
