"""The rules of the hyperparameters."""

from dataclasses import asdict, fields

import pytest

from bots_server.core.hyperparameters import RULES, Hyperparameters, InvalidHyperparameter, check

LIMITS = {  # lowest and highest value that is taken, and the next ones that are not
    "forgetting": (0, 0.999999, -1e-9, 1),
    "implicit_weight": (0, 1, -1e-9, 1.000001),
    "target": (0, 1, -1e-9, 1.000001),
    "implicit_rollouts": (0, 1e6, -1e-9, 1e6 + 1),
    "capability_smoothing": (0, 0.999999, -1e-9, 1),
    "rollouts_per_update": (0, 10**9, -1, 10**9 + 1),
    "tolerance": (0, 1e-6, -1e-9, 1.1e-6),
    "cooldown": (0, 10_000, -1, 10_001),
    "uniform_fraction": (0, 1, -1e-9, 1.000001),
    "temperature": (0, 1e6, -1e-9, 1e6 + 1),
    "greedy": (False, True, -1, 2),
}


def test_every_field_has_a_rule_that_its_default_keeps() -> None:
    """There is one rule for each field, and the defaults are valid."""
    assert list(RULES) == [field.name for field in fields(Hyperparameters)] == list(LIMITS)
    check(**asdict(Hyperparameters()))


@pytest.mark.parametrize("field", RULES)
def test_limits(field: str) -> None:
    """The bounds of the rule are taken; what is beyond, and what is no number, is refused and says so."""
    lowest, highest, below, above = LIMITS[field]
    check(**{field: lowest})
    check(**{field: highest})
    for value in (below, above, float("nan"), float("inf")):
        with pytest.raises(InvalidHyperparameter) as caught:
            check(**{field: value})
        assert (caught.value.field, caught.value.rule) == (field, RULES[field][0])
        assert field in str(caught.value)
        assert repr(value) in str(caught.value)
