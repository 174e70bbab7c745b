"""Numeric features of tasks from their text, for the item_response model: `pip install 'bots-client[features]'`.

The model learns from outcomes which features make tasks hard. Any other embedding does as well: `features=` of
`create_dataset` takes every array of numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

MAX_DIMENSIONS = 63  # and the length: a dataset has at most 64 features

_BUCKETS = 2**16
_TERMS = r"\w+|[^\w\s]"  # words and single signs: formulas have more of these than of words
_CHUNK = 1000
# Results are rounded to steps of some thousandths of a standard deviation. Linear algebra on another machine, or with
# another number of threads, differs by less than 1e-12.
_STEP = 2.0**-14


def from_text(
    texts: Sequence[str] | npt.NDArray[np.str_],
    dimensions: int = 32,
    progress: Callable[[int], object] | None = None,
    seed: int = 0,
) -> npt.NDArray[np.float32]:
    """Returns `[N, dimensions + 1]` features of N texts: latent semantic analysis, and the logarithm of the length.

    TF-IDF of words and of pairs of neighbouring words, hashed into 65,536 buckets, reduced by a truncated singular
    value decomposition. If there are fewer texts than dimensions, the last dimensions are 0. Equal texts in equal order
    give equal bytes. Takes about 5 seconds for 30,000 texts of 250 characters.

    dimensions  between 1 and 63.
    progress    called with the number of texts read so far.
    seed        of the decomposition's random start.

    Raises ImportError without scikit-learn, ValueError if an entry is not a string or `dimensions` is out of range.
    """
    try:
        from scipy.sparse import vstack
        from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
        from sklearn.utils.extmath import randomized_svd
    except ImportError as error:
        raise ImportError("features from text need scikit-learn: pip install 'bots-client[features]'") from error
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise ValueError(f"dimensions: got {dimensions!r}, must be between 1 and {MAX_DIMENSIONS}")
    if isinstance(texts, str):
        raise ValueError(f"texts: got {_short(texts)}, must be a sequence of strings")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"texts[{index}]: got {_short(text)}, must be a string")
    features = np.zeros((len(texts), dimensions + 1))
    features[:, dimensions] = np.log1p([len(text) for text in texts])
    terms = HashingVectorizer(
        n_features=_BUCKETS, ngram_range=(1, 2), token_pattern=_TERMS, alternate_sign=False, norm=None
    )
    parts = []
    for start in range(0, len(texts), _CHUNK):
        parts.append(terms.transform(texts[start : start + _CHUNK]))
        if progress is not None:
            progress(min(start + _CHUNK, len(texts)))
    counts = vstack(parts, format="csr") if parts else None
    if counts is not None and counts.nnz:
        used = np.flatnonzero(counts.getnnz(axis=0))
        weights = TfidfTransformer(sublinear_tf=True).fit_transform(counts[:, used])
        rank = min(dimensions, *weights.shape)
        left, values, _ = randomized_svd(weights, rank, n_iter=5, random_state=seed)
        features[:, :rank] = left * values
    return (np.rint(features / _STEP) * _STEP + 0.0).astype(np.float32)  # + 0.0: no -0


def _short(value: object) -> str:
    """Returns the value as text, cut if it is long."""
    shown = repr(value)
    return shown if len(shown) <= 40 else f"{shown[:40]}..."
