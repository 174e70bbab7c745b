"""The rules of the hyperparameters."""

from dataclasses import asdict, fields

import pytest

from bots_server.core.hyperparameters import (
    MODELS,
    RULES,
    Hyperparameters,
    InvalidHyperparameter,
    check,
    check_size,
    default_model,
)

LIMITS = {  # lowest and highest value that is taken, and the next ones that are not
    "target": (0, 1, -1e-9, 1.000001),
    "rest": (0, 1, -1e-9, 1.000001),
    "uniform_fraction": (0, 1, -1e-9, 1.000001),
    "temperature": (0, 1e6, -1e-9, 1e6 + 1),
    "greedy": (False, True, -1, 2),
    "rollouts_per_update": (0, 10**6, -1, 10**6 + 1),
    "forgetting": (0, 0.999999, -1e-9, 1),
    "implicit_weight": (0, 1, -1e-9, 1.000001),
    "implicit_rollouts": (0, 1e6, -1e-9, 1e6 + 1),
    "residual_memory": (0, 1, -1e-9, 1.000001),
    "drift": (0, 1, -1e-9, 1.000001),
}


def test_every_field_has_a_rule_that_its_default_keeps() -> None:
    """There is one rule for each field, and the defaults are valid for the models that have them."""
    assert list(RULES) == [field.name for field in fields(Hyperparameters)] == list(LIMITS)
    for field, value in asdict(Hyperparameters()).items():
        check(RULES[field].model or MODELS[0], **{field: value})


@pytest.mark.parametrize("field", RULES)
def test_limits(field: str) -> None:
    """The bounds of the rule are taken; values beyond them, NaN and infinity are refused with field, value and rule."""
    lowest, highest, below, above = LIMITS[field]
    model = RULES[field].model or MODELS[1]
    check(model, **{field: lowest})
    check(model, **{field: highest})
    for value in (below, above, float("nan"), float("inf")):
        with pytest.raises(InvalidHyperparameter) as caught:
            check(model, **{field: value})
        assert (caught.value.field, caught.value.rule) == (field, RULES[field].words)
        assert str(caught.value) == f"{field}: got {value!r}, must be {RULES[field].words}"


@pytest.mark.parametrize("field", RULES)
def test_a_value_of_the_other_model_is_refused(field: str) -> None:
    """A hyperparameter that belongs to one model is refused for the other; what belongs to none is taken by both."""
    for model in MODELS:
        if RULES[field].model in (None, model):
            check(model, **{field: LIMITS[field][0]})
        else:
            with pytest.raises(InvalidHyperparameter, match=f"belongs to {RULES[field].model}.*model is {model}"):
                check(model, **{field: LIMITS[field][0]})


def test_the_model_of_a_run_that_asks_for_none() -> None:
    """Interpolation if the dataset has both references and nothing else, else item_response."""
    assert default_model(("strong", "weak"), tagged=False, features=0) == "interpolation"
    for names, tagged, features in [
        (("weak",), False, 0),
        ((), False, 0),
        (("weak", "strong", "other"), False, 0),
        (("weak", "strong"), True, 0),
        (("weak", "strong"), False, 1),
    ]:
        assert default_model(names, tagged, features) == "item_response"


@pytest.mark.parametrize(
    ("model", "field", "taken", "refused", "rule"),
    [
        ("interpolation", "forgetting", 0.01, 0.0099, "at least 0.01"),
        ("item_response", "residual_memory", 0.99, 0.991, "at most 0.99"),
    ],
)
def test_large_datasets_need_forgetting(model: str, field: str, taken: float, refused: float, rule: str) -> None:
    """Beyond 2^20 tasks, so that the number of those with a posterior of their own is bounded."""
    values = Hyperparameters(**{field: refused})  # type: ignore[arg-type]
    check_size(model, values, 2**20)
    check_size(MODELS[model == "interpolation"], values, 2**20 + 1)
    check_size(model, Hyperparameters(**{field: taken}), 2**20 + 1)  # type: ignore[arg-type]
    with pytest.raises(InvalidHyperparameter, match=f"{field}: got {refused}, must be {rule}, as the dataset has more"):
        check_size(model, values, 2**20 + 1)
