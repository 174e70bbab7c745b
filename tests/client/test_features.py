"""Features from text: what they hold, that equal texts give equal bytes, and what is refused."""

import hashlib
import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from bots.features import from_text

TEXTS = [
    f"Find the {'largest' if number % 2 else 'smallest'} integer n such that n^{number % 7} + {number} is prime."
    + " Prove it." * (number % 5)
    for number in range(300)
]


@pytest.fixture
def _sklearn() -> None:
    pytest.importorskip("sklearn", reason="the extra `features` is not installed")


@pytest.mark.usefixtures("_sklearn")
def test_returns_dimensions_and_the_logarithm_of_the_length() -> None:
    """Row i is about text i; the last column is log(1 + characters)."""
    features = from_text(TEXTS, dimensions=8)
    assert features.shape == (300, 9)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features[:, 8], np.log1p([len(text) for text in TEXTS]), atol=1e-4)
    assert (features[:, :8].std(0) > 0).all()


@pytest.mark.usefixtures("_sklearn")
def test_texts_with_equal_words_are_near() -> None:
    """A text is nearer to one with most of its words than to one with others."""
    texts = ["integrate the function", "integrate this function", "the median of a triangle", "a median of triangles"]
    rows = from_text(texts * 5, dimensions=2)[:4, :2]
    assert np.linalg.norm(rows[0] - rows[1]) < 0.5 * np.linalg.norm(rows[0] - rows[2])


@pytest.mark.usefixtures("_sklearn")
def test_equal_texts_give_equal_bytes_in_any_process_and_thread() -> None:
    """Neither the process, its hash seed, nor the number of threads of linear algebra changes a byte."""
    expected = hashlib.sha256(from_text(TEXTS).tobytes()).hexdigest()
    script = (
        "import hashlib, json, sys; from bots.features import from_text;"
        "print(hashlib.sha256(from_text(json.load(sys.stdin)).tobytes()).hexdigest())"
    )
    for threads, hash_seed in (("1", "1"), ("4", "2")):
        environment = {"OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", script],
            input=json.dumps(TEXTS),
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == expected
    found: list[str] = []
    threads_of_python = [
        threading.Thread(target=lambda: found.append(hashlib.sha256(from_text(TEXTS).tobytes()).hexdigest()))
        for _ in range(3)
    ]
    for thread in threads_of_python:
        thread.start()
    for thread in threads_of_python:
        thread.join()
    assert found == [expected] * 3


@pytest.mark.usefixtures("_sklearn")
def test_another_seed_and_another_order_are_other_bytes() -> None:
    """The bytes depend on the seed only as far as the decomposition is approximate, and on the order of the texts."""
    np.testing.assert_allclose(np.abs(from_text(TEXTS, 2, seed=1)), np.abs(from_text(TEXTS, 2)), atol=1e-2)
    np.testing.assert_allclose(np.abs(from_text(TEXTS[::-1], 2)), np.abs(from_text(TEXTS, 2))[::-1], atol=1e-2)


@pytest.mark.usefixtures("_sklearn")
@pytest.mark.parametrize("texts", [[], [""], ["", ""], ["one text"], ["same"] * 50, ["a", "", "b c"]])
def test_few_empty_and_equal_texts_are_taken(texts: list[str]) -> None:
    """The shape is always `[N, dimensions + 1]` and every value finite; empty texts are rows of 0."""
    features = from_text(texts, dimensions=16)
    assert features.shape == (len(texts), 17)
    assert np.isfinite(features).all()
    for text, row in zip(texts, features, strict=True):
        assert bool(row.any()) == bool(text)


@pytest.mark.usefixtures("_sklearn")
def test_progress_counts_the_texts_read() -> None:
    """`progress` is called with ascending counts, the last of which is N."""
    counts: list[int] = []
    from_text(TEXTS * 8, dimensions=2, progress=counts.append)
    assert counts == [1000, 2000, 2400]


@pytest.mark.usefixtures("_sklearn")
def test_arrays_of_strings_are_taken() -> None:
    """A numpy array of strings gives what the list gives."""
    np.testing.assert_array_equal(from_text(np.array(TEXTS), 4), from_text(TEXTS, 4))


@pytest.mark.usefixtures("_sklearn")
@pytest.mark.parametrize(
    ("texts", "dimensions", "message"),
    [
        (["a", None], 4, r"^texts\[1\]: got None, must be a string$"),
        ([3.5], 4, r"^texts\[0\]: got 3.5, must be a string$"),
        (["a", b"b"], 4, r"^texts\[1\]: got b'b', must be a string$"),
        ("one prompt", 4, r"^texts: got 'one prompt', must be a sequence of strings$"),
        (["a"], 0, r"^dimensions: got 0, must be between 1 and 63$"),
        (["a"], 64, r"^dimensions: got 64, must be between 1 and 63$"),
    ],
)
def test_refuses_what_is_no_text(texts: list[str], dimensions: int, message: str) -> None:
    """The message names the entry, its value and the rule."""
    with pytest.raises(ValueError, match=message):
        from_text(texts, dimensions)


def test_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without scikit-learn the error names the extra."""
    monkeypatch.setitem(sys.modules, "sklearn.feature_extraction.text", None)
    with pytest.raises(ImportError, match=r"pip install 'bots-client\[features\]'"):
        from_text(["a"])
