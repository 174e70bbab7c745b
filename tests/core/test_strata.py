"""Strata: found exactly, numbered in order of first appearance, however the dataset is chunked."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bots_server.core.strata import MAX_STRATA, Strata, StrataBuilder, TooManyStrata
from tests.strategies import Columns, columns, cuts


def f32(*values: float) -> NDArray[np.float32]:
    return np.array(values, np.float32)


def cut(column: NDArray[np.generic] | None, chunk: slice) -> NDArray[np.generic] | None:
    return None if column is None else column[chunk]


def rows(strata: Strata) -> list[tuple[bytes, ...]]:
    """Returns one row of bits a stratum, so that NaN equals NaN."""
    table = (strata.weak, strata.strong, strata.prior_alpha, strata.prior_beta)
    return [tuple(column[g].tobytes() for column in table) for g in range(len(strata))]


@given(columns(), st.data())
def test_strata_are_the_distinct_rows_in_order_of_first_appearance(dataset: Columns, data: st.DataObject) -> None:
    """A stratum is one (prior, references), whole and exact; cutting the dataset into chunks changes no number."""
    builder = StrataBuilder()
    parts = []
    for chunk in data.draw(cuts(dataset.size)):
        given_columns = (dataset.weak, dataset.strong, dataset.prior_alpha, dataset.prior_beta)
        weak, strong, alpha, beta = (cut(column, chunk) for column in given_columns)
        parts.append(builder.add(weak, strong, alpha, beta, chunk.stop - chunk.start))  # type: ignore[arg-type]
    stratum, strata = np.concatenate(parts), builder.strata()
    each = dataset.each()
    for name in ("weak", "strong", "prior_alpha", "prior_beta"):
        np.testing.assert_array_equal(getattr(strata, name)[stratum], each[name])
    assert len(set(rows(strata))) == len(strata)
    assert list(dict.fromkeys(stratum.tolist())) == list(range(len(strata)))
    np.testing.assert_array_equal(strata.referenced, ~np.isnan(strata.weak))


def test_one_nan_and_one_zero() -> None:
    """Every NaN is the same absence, and -0 is 0."""
    nans = np.array([0x7FC00000, 0xFFC00000, 0x7FC00001], np.uint32).view(np.float32)
    builder = StrataBuilder()
    assert builder.add(nans, nans, None, None, 3).tolist() == [0, 0, 0]
    assert builder.add(None, None, None, None, 1).tolist() == [0]
    assert builder.add(f32(0, -0.0), f32(1, 1), None, None, 2).tolist() == [1, 1]
    assert builder.add(None, None, np.ones(1), np.ones(1), 1).tolist() == [0]
    assert rows(builder.strata()) == rows(Strata(f32(np.nan, 0), f32(np.nan, 1), np.ones(2), np.ones(2)))


def test_a_grid_rounds_references() -> None:
    """Reference pass rates go to the nearest multiple of the grid, and stay in [0, 1]."""
    builder = StrataBuilder(reference_grid=0.35)
    weak = np.array([0.0, 0.17, 0.18, 0.7, 1.0, np.nan], np.float32)
    assert builder.add(weak, weak, None, None, 6).tolist() == [0, 0, 1, 2, 3, 4]
    expected = np.array([0.0, 0.35, 0.7, 1.0, np.nan], np.float32)
    np.testing.assert_array_equal(builder.strata().weak, expected)
    np.testing.assert_array_equal(builder.strata().strong, expected)


def test_too_many_strata_are_refused() -> None:
    """2^20 strata are taken, in one column or by combination; one more is not."""
    builder = StrataBuilder()
    many = (np.arange(MAX_STRATA) / MAX_STRATA).astype(np.float32)
    np.testing.assert_array_equal(builder.add(many, many, None, None, MAX_STRATA), np.arange(MAX_STRATA))
    assert len(builder.strata()) == MAX_STRATA
    np.testing.assert_array_equal(builder.add(many[:-5:-1], many[:-5:-1], None, None, 4), MAX_STRATA - 1 - np.arange(4))
    with pytest.raises(TooManyStrata, match="reference_grid"):
        builder.add(many[:1], many[:1], np.array([2.0]), np.array([2.0]), 1)
    with pytest.raises(TooManyStrata):
        builder.add(f32(0.3), f32(0.7), None, None, 1)


def test_many_strata_over_blocks_keep_their_numbers() -> None:
    """Numbers are the same whether a key was seen in this block, in an earlier one, or in an earlier chunk."""
    rng = np.random.default_rng(0)
    weak, strong = ((rng.integers(0, 401, 300_000) / 400).astype(np.float32) for _ in range(2))
    key = weak.astype(np.float64) * 1000 + strong
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    expected = first.argsort().argsort()[inverse]
    builder = StrataBuilder()
    parts = [builder.add(weak[:100_001], strong[:100_001], None, None, 100_001)]
    parts.append(builder.add(weak[100_001:], strong[100_001:], None, None, 199_999))
    np.testing.assert_array_equal(np.concatenate(parts), expected)
