"""Strata: found exactly, numbered in order of first appearance, however the dataset is chunked."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bots_server.core.strata import MAX_STRATA, Strata, StrataBuilder, TooManyStrata
from tests.strategies import Columns, columns, cuts


def f32(*rows: list[float]) -> NDArray[np.float32]:
    return np.array(rows, np.float32)


def cut(column: NDArray[np.generic] | None, chunk: slice) -> NDArray[np.generic] | None:
    return None if column is None else column[chunk]


def rows(strata: Strata) -> list[tuple[bytes, ...]]:
    """Returns one row of bits a stratum, so that NaN equals NaN."""
    table = (strata.references, strata.prior_alpha, strata.prior_beta)
    return [tuple(column[g].tobytes() for column in table) for g in range(len(strata))]


@given(columns(), st.data())
def test_strata_are_the_distinct_rows_in_order_of_first_appearance(dataset: Columns, data: st.DataObject) -> None:
    """A stratum is one (prior, references), whole and exact; cutting the dataset into chunks changes no number."""
    builder = StrataBuilder(len(dataset.references))
    table = np.stack(list(dataset.references.values()), 1) if dataset.references else None
    parts = []
    for chunk in data.draw(cuts(dataset.size)):
        references, alpha, beta = (cut(column, chunk) for column in (table, dataset.prior_alpha, dataset.prior_beta))
        parts.append(builder.add(references, alpha, beta, chunk.stop - chunk.start))  # type: ignore[arg-type]
    stratum, strata = np.concatenate(parts), builder.strata()
    each = dataset.each()
    for name in ("prior_alpha", "prior_beta"):
        np.testing.assert_array_equal(getattr(strata, name)[stratum], each[name])
    for j, rates in enumerate(dataset.references.values()):
        np.testing.assert_array_equal(strata.references[stratum, j], rates)
    assert strata.references.shape == (len(strata), len(dataset.references))
    assert len(set(rows(strata))) == len(strata)
    assert list(dict.fromkeys(stratum.tolist())) == list(range(len(strata)))


def test_one_nan_and_one_zero() -> None:
    """Every NaN is the same absence, and -0 is 0."""
    nans = np.array([0x7FC00000, 0xFFC00000, 0x7FC00001], np.uint32).view(np.float32)
    builder = StrataBuilder(2)
    assert builder.add(np.stack([nans, nans], 1), None, None, 3).tolist() == [0, 0, 0]
    assert builder.add(None, None, None, 1).tolist() == [0]
    assert builder.add(f32([0, 1], [-0.0, 1]), None, None, 2).tolist() == [1, 1]
    assert builder.add(None, np.ones(1), np.ones(1), 1).tolist() == [0]
    assert rows(builder.strata()) == rows(Strata(f32([np.nan, np.nan], [0, 1]), np.ones(2), np.ones(2)))


def test_a_grid_rounds_references() -> None:
    """Reference pass rates go to the nearest multiple of the grid, and stay in [0, 1]."""
    builder = StrataBuilder(1, reference_grid=0.35)
    rates = f32([0.0], [0.17], [0.18], [0.7], [1.0], [np.nan])
    assert builder.add(rates, None, None, 6).tolist() == [0, 0, 1, 2, 3, 4]
    expected = f32([0.0], [0.35], [0.7], [1.0], [np.nan])
    np.testing.assert_array_equal(builder.strata().references, expected)


@pytest.mark.parametrize("grid", [5e-324, 1e-310, 1e-50])
def test_a_grid_finer_than_floats_keeps_references(grid: float) -> None:
    """No overflow in the number of its steps."""
    rates = np.array([[0], [1e-45], [0.1], [1], [np.nan]], np.float32)
    builder = StrataBuilder(1, reference_grid=grid)
    builder.add(rates, None, None, 5)
    assert np.array_equal(builder.strata().references, rates, equal_nan=True)


def test_too_many_strata_are_refused() -> None:
    """2^20 strata are taken, in one column or by combination; one more is not."""
    builder = StrataBuilder(2)
    rates = (np.arange(MAX_STRATA) / MAX_STRATA).astype(np.float32)
    many = np.stack([rates, rates], 1)
    np.testing.assert_array_equal(builder.add(many, None, None, MAX_STRATA), np.arange(MAX_STRATA))
    assert len(builder.strata()) == MAX_STRATA
    np.testing.assert_array_equal(builder.add(many[:-5:-1], None, None, 4), MAX_STRATA - 1 - np.arange(4))
    with pytest.raises(TooManyStrata, match="reference_grid"):
        builder.add(many[:1], np.array([2.0]), np.array([2.0]), 1)


def test_many_strata_over_chunks_keep_their_numbers() -> None:
    """Numbers are the same if a key was seen in this chunk or in an earlier one."""
    rng = np.random.default_rng(0)
    table = (rng.integers(0, 401, (300_000, 2)) / 400).astype(np.float32)
    key = table[:, 0].astype(np.float64) * 1000 + table[:, 1]
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    expected = first.argsort().argsort()[inverse]
    builder = StrataBuilder(2)
    parts = [builder.add(table[:100_001], None, None, 100_001), builder.add(table[100_001:], None, None, 199_999)]
    np.testing.assert_array_equal(np.concatenate(parts), expected)
