"""Who is found in whose place."""

import numpy as np
import pytest

from consistentid.evaluation.leak import identity_matrix, leak

A, B, C = np.eye(3)


def test_the_matrix_of_people_and_places() -> None:
    found = identity_matrix([A, B, None], [2 * A, A + B])
    np.testing.assert_allclose(found[:2], [[1, 0.5**0.5], [0, 0.5**0.5]])
    assert np.isnan(found[2]).all()
    assert identity_matrix([], [A]).shape == (0, 1)


def test_leak_is_what_the_others_added() -> None:
    assert leak(A, [B, C], base=A) == 0
    assert leak(A + B, [B], base=A) == pytest.approx(0.5**0.5)
    assert leak(A + B, [B, C], base=A) == pytest.approx(0.5**0.5 / 2)
    assert leak(A, [B], base=A + B) < 0, "pushed away"
    assert leak(A + B, [B], base=A + B) == 0, "who looks alike leaks nothing"


def test_without_a_face_nothing_is_known() -> None:
    assert np.isnan(leak(None, [B], base=A))
    assert np.isnan(leak(A, [B], base=None))
    assert np.isnan(leak(A, [], base=A))
