import pytest

from training.arguments import budget_seconds, build_parser, default_processes, peak_rates
from training.model.optimiser import Rates


@pytest.mark.parametrize("command", ["text", "speech", "tokenizer", "export"])
def test_a_command_needs_no_settings(command: str) -> None:
    assert build_parser().parse_args([command]).command == command


def test_the_length_of_a_run_has_to_be_said_in_one_way() -> None:
    parser = build_parser()
    assert parser.parse_args(["train", "--steps", "3"]).steps == 3
    for wrong in ([], ["--steps", "3", "--run-seconds", "4"]):
        with pytest.raises(SystemExit):
            parser.parse_args(["train", *wrong])


def test_what_is_not_said_follows_the_device() -> None:
    assert budget_seconds(None, "cuda") > budget_seconds(None, "cpu")
    assert budget_seconds(5.0, "cuda") == 5.0
    assert peak_rates(None, None, "cuda").muon > peak_rates(None, None, "cpu").muon
    assert peak_rates(0.5, 0.25, "cpu") == Rates(0.5, 0.25)
    assert default_processes() >= 1
