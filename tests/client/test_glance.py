"""The view of a run in a terminal, from a summary."""

import io
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

import pytest
from rich.console import Console

from bots.cli.glance import NOTHING_EXPLAINED, glance, position, sparkline
from bots.cli.watch import Rate
from bots.summary import Summary
from bots.v1 import task_selection_pb2 as pb

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
NAN = float("nan")


def message() -> pb.RunSummary:
    """Returns the summary of an item_response run with figures that can be told apart."""
    nothing = pb.Accuracy(absolute_error=NAN, brier_score=NAN, correlation=NAN, auc=NAN)
    summary = pb.RunSummary(
        run=pb.Run(
            ref=pb.RunRef(dataset="letters", name="one"),
            model=pb.EVIDENCE_MODEL_ITEM_RESPONSE,
            hyperparameters=pb.Hyperparameters(target=0.5),
            version=7,
        ),
        updates=5,
        item_response=pb.ItemResponseSummary(
            ability=0.25,
            residual_variance=2.5,
            explained_share=0.375,
            weights=[
                pb.InputWeight(input="feature:digits", mean=-2.0, standard_deviation=0.5),
                pb.InputWeight(input="tag:[red]", mean=1.0, standard_deviation=0.25),
            ],
        ),
        pass_rate_bins=[1_000, *[0] * 18, 1],
        distinct_tasks=974,
        coverage=0.974,
        epochs=3.2,
        resting_tasks=500,
        uniform_effective_task_ratio=0.25,
        recent=pb.Evidence(
            effective_task_ratio=0.5,
            prediction=pb.Accuracy(absolute_error=0.125, correlation=0.75, auc=0.875),
            first_prediction=nothing,
            implicit_prediction=nothing,
            calibration=[pb.CalibrationBin()] * 3
            + [pb.CalibrationBin(outcomes=40, predicted=0.35, observed=0.28)]
            + [pb.CalibrationBin()] * 6,
        ),
    )
    summary.last_report_time.FromDatetime(NOW - timedelta(seconds=30))
    return summary


def drawn(summary: pb.RunSummary, trend: Sequence[float] = ()) -> list[str]:
    """Returns the lines of the glance, 80 columns wide."""
    console = Console(file=io.StringIO(), width=80)
    console.print(glance(Summary.of(summary), 12.5, NOW, trend))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def words(lines: Sequence[str], label: str) -> list[str]:
    """Returns the words after the label in the only line that has it."""
    (line,) = (line for line in lines if label in line)
    return line.partition(label)[2].split()


def test_the_histogram_has_a_bar_for_each_bin() -> None:
    """The fullest bin has the longest bar, every bin that is not empty is visible, and the target is marked."""
    lines = drawn(message())
    bars = [line for line in lines if line[:2] in ("0.", "1.") and " to " not in line]
    assert [line.count("█") for line in bars] == [24, *[0] * 18, 1]
    assert [line for line in bars if "◄" in line] == [bars[10]]


def test_coverage_is_beside_the_effective_task_ratio() -> None:
    """The ratio comes with uniform selection's, with the distinct tasks and with the coverage."""
    lines = drawn(message())
    assert words(lines, "effective task ratio") == ["50.0%"]
    assert words(lines, "of uniform selection") == ["25.0%"]
    assert words(lines, "distinct tasks") == ["974"]
    assert words(lines, "coverage") == ["97.4%"]
    assert words(lines, "epochs") == ["3.2"]
    assert words(lines, "resting tasks") == ["500"]
    assert words(lines, "updates per minute") == ["12.5"]
    assert words(lines, "last report") == ["30", "s", "ago"]


def test_item_response_shows_ability_and_weights_by_name() -> None:
    """The ability has its trend; each input has its weight, its deviation and a bar. Names are no markup."""
    lines = drawn(message(), [0.0, 0.25])
    assert "item_response" in lines[0]
    assert words(lines, "ability") == ["+0.25", "(logit)", "▁█"]
    assert words(lines, "difficulty:") == ["37.5%", "explained", "by", "the", "inputs,", "residual", "variance", "2.5"]
    assert words(lines, "feature:digits") == ["████████", "-2.00", "±", "0.50"]
    assert words(lines, "tag:[red]") == ["████", "+1.00", "±", "0.25"]
    assert not any(NOTHING_EXPLAINED in line for line in lines)


def test_shadow_mode_is_shown_if_there_were_reports_in_it() -> None:
    """By predicted effectiveness, the trainer's share beside that of BOTS; then both ratios with their error bars."""
    assert not any("shadow" in line for line in drawn(message()))
    summary = message()
    summary.total.shadow.CopyFrom(
        pb.Shadow(
            outcomes=4,
            selected=8,
            effective_task_ratio=0.25,
            standard_error=0.125,
            selected_effective_task_ratio=0.75,
            selected_standard_error=0.0625,
            bins=[pb.ShadowBin()] * 7
            + [
                pb.ShadowBin(outcomes=3, selected=2, effective_task_ratio=0.5),
                pb.ShadowBin(outcomes=1, selected=6, effective_task_ratio=NAN),
                pb.ShadowBin(),
            ],
        )
    )
    lines = drawn(summary)
    assert words(lines, "0.7 to 0.8") == ["75.0%", "50.0%", "25.0%"]
    assert words(lines, "0.8 to 0.9") == ["25.0%", "-", "75.0%"]
    assert words(lines, "of all") == ["0.250", "±", "0.125", "0.750", "±", "0.062"]


def test_inputs_that_explain_nothing_are_a_warning() -> None:
    """The warning of the summary is a line of its own."""
    summary = message()
    summary.item_response.inputs_explain_nothing = True
    summary.item_response.ClearField("weights")
    lines = [line.rstrip() for line in drawn(summary)]
    assert NOTHING_EXPLAINED in " ".join(lines)
    assert not any("easier" in line for line in lines)


def test_interpolation_shows_capability() -> None:
    """A capability that is not known yet is a dash, and there are no weights."""
    summary = message()
    summary.run.model = pb.EVIDENCE_MODEL_INTERPOLATION
    summary.interpolation.SetInParent()
    assert words(drawn(summary), "capability") == ["-"]
    assert position(Summary.of(summary)) is None
    summary.interpolation.capability = 0.5
    assert words(drawn(summary, [0.5]), "capability") == ["0.5", "▁"]
    assert position(Summary.of(summary)) == 0.5


def test_predictions_and_calibration_are_shown() -> None:
    """Predictions without outcomes are dashes; only calibration bins with outcomes have a row."""
    lines = drawn(message())
    assert words(lines, "all tasks") == ["0.125", "0.750", "0.875"]
    assert words(lines, "tasks never tried") == ["-", "-", "-"]
    assert words(lines, "0.3 to 0.4") == ["0.35", "0.28", "40"]
    assert sum(" to " in line for line in lines) == 1


@pytest.mark.parametrize(("values", "line"), [([], ""), ([1.0, 1.0], "▁▁"), ([-1.0, 0.0, 6.0], "▁▂█")])
def test_a_sparkline_goes_from_the_least_to_the_greatest(values: list[float], line: str) -> None:
    """The least value is the lowest block, the greatest the highest."""
    assert sparkline(values) == line


def test_the_rate_is_of_the_last_minute() -> None:
    """Updates per minute are counted over the last minute, and unknown at first."""
    rate = Rate()
    assert rate.after(0, 100) is None
    assert rate.after(30, 110) == 20
    assert rate.after(60, 120) == 20
    assert rate.after(120, 120) == 0
