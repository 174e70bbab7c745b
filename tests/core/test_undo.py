"""Which events give a state: the same list from any version on, and less one event after an undo."""

from hypothesis import given
from hypothesis import strategies as st

from bots_server.core.undo import Counted, Step, counted


@st.composite
def histories(draw: st.DrawFn) -> list[Step]:
    """Histories of reports and changes, of restores to any version, and of undos of reports that count."""
    steps: list[Step] = []
    for version in range(1, draw(st.integers(1, 14)) + 1):
        reports = [
            step.version for step in steps if step.kind == "report" and step.version in listed(steps, version - 1)
        ]
        kind = draw(st.sampled_from(["report", "report", "report", "change", "restore", "undo"]))
        if kind == "restore":
            steps.append(Step(version, "restore", draw(st.integers(0, version - 1))))
        elif kind == "undo" and reports:
            steps.append(Step(version, "undo", draw(st.sampled_from(reports))))
        else:
            steps.append(Step(version, "change" if kind == "change" else "report"))
    return steps


def listed(steps: list[Step], version: int, without: frozenset[int] = frozenset()) -> tuple[int, ...]:
    """Returns the versions of the events that give the state of a version, by the definition: a restore goes back to
    another list and adds its mark to it, an undo is the list before it without the report.
    """
    if version == 0:
        return ()
    step = steps[version - 1]
    match step.kind:
        case "restore":
            return (*listed(steps, step.target, without), version)
        case "undo":
            return listed(steps, version - 1, without | {step.target})
        case _:
            before = listed(steps, version - 1, without)
            return before if version in without else (*before, version)


@given(histories(), st.data())
def test_list_is_the_same_from_any_version_on(steps: list[Step], data: st.DataObject) -> None:
    """The events up to where the list starts, and those that follow, are those of the definition."""
    base = data.draw(st.integers(0, len(steps)))
    found = counted(base, steps[base:])
    assert (*listed(steps, found.start), *found.versions) == listed(steps, len(steps))


@given(histories())
def test_list_without_a_report_is_the_history_without_it(steps: list[Step]) -> None:
    """Taking a report out of the list is as if it had never been, for the restores and undos after it too."""
    versions = counted(0, steps).versions
    for step in steps:
        if step.kind == "report":
            left = listed(steps, len(steps), frozenset({step.version}))
            assert left == tuple(version for version in versions if version != step.version)


def test_restore_and_undo_that_reach_back_further_start_the_list() -> None:
    """Their own states are known."""
    before = [Step(5, "report"), Step(6, "restore", 2)]
    assert counted(4, before) == Counted(6, ())
    assert counted(4, [*before, Step(7, "report"), Step(8, "undo", 1), Step(9, "change")]) == Counted(8, (9,))
