"""Square crops: faces of any size and place come to lie alike."""

import numpy as np
import pytest

from consistentid.faces.crops import Square, alignment

LANDMARKS = np.array([[45.0, 55.0], [84.0, 54.0], [64.0, 85.0], [50.0, 100.0], [80.0, 100.0]])


@pytest.mark.parametrize(("zoom", "shift"), [(1.0, (0.0, 0.0)), (3.7, (250.0, -40.0)), (0.4, (-9.0, 12.0))])
def test_eyes_and_nose_lie_in_one_place_wherever_the_face_is(zoom: float, shift: tuple[float, float]) -> None:
    moved = LANDMARKS * zoom + shift

    found = Square.on_face(moved).points(moved, 128)

    expected = Square.on_face(LANDMARKS).points(LANDMARKS, 128)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_the_aligned_face_is_in_the_middle_of_the_crop() -> None:
    matrix = alignment(Square.on_face(LANDMARKS).points(LANDMARKS, 128), 2)

    assert matrix.sum(1) == pytest.approx((64.0, 70.3), abs=0.1)
    assert 2 * np.hypot(*matrix[:, 0]) == pytest.approx(86.5, abs=0.1)
