"""From coarse cells to fine points."""

import numpy as np
import pytest
import torch

from ai4sim.errors import InputError
from downscaling.corrdiff.interpolation import Upsample, interpolate, weights


def centres(n: int, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of the centres of cells and of fine points, in cells."""
    return np.arange(n) + 0.5, (np.arange(factor * n) + 0.5) / factor


def affine(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return 3.0 - 0.7 * rows[:, None] + 1.3 * columns


def by_formula(a: np.ndarray, factor: int) -> np.ndarray:
    """Section 2 of the specification, along the last axis, point by point."""
    n = a.shape[-1]
    out = np.empty((*a.shape[:-1], factor * n))
    for i in range(factor * n):
        s = (i + 0.5) / factor - 0.5
        i0 = min(max(int(np.floor(s)), 0), n - 2)
        w = s - i0
        out[..., i] = (1 - w) * a[..., i0] + w * a[..., i0 + 1]
    return out


@pytest.mark.parametrize("method", ["linear", "cubic"])
@pytest.mark.parametrize(("shape", "factor"), [((8, 8), 8), ((2, 5), 8), ((12, 10), 5), ((4, 3), 1)])
def test_affine_fields_are_exact_up_to_the_rims(method, shape, factor):
    (y, fine_y), (x, fine_x) = (centres(n, factor) for n in shape)
    found = interpolate(affine(y, x)[None], factor, method)
    assert found.shape == (1, factor * shape[0], factor * shape[1])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], affine(fine_y, fine_x), atol=1e-5)


@pytest.mark.parametrize("factor", [2, 3, 8])
def test_linear_is_the_formula(factor):
    fields = np.random.default_rng(0).standard_normal((2, 3, 7, 5))
    expected = np.swapaxes(by_formula(np.swapaxes(by_formula(fields, factor), -1, -2), factor), -1, -2)
    np.testing.assert_allclose(interpolate(fields, factor, "linear"), expected, atol=1e-5)
    np.testing.assert_allclose(weights(7, factor) @ fields @ weights(5, factor).T, expected, rtol=1e-12, atol=1e-12)


def test_linear_goes_beyond_the_outermost_centres():
    rows = weights(8, 8)
    assert rows[0, :3] == pytest.approx([1 + 7 / 16, -7 / 16, 0])
    assert rows[-1, -3:] == pytest.approx([0, -7 / 16, 1 + 7 / 16])


@pytest.mark.parametrize("factor", [2, 8])
def test_cubic_is_exact_for_quadratic_fields_within(factor):
    n = 9
    y, fine = centres(n, factor)
    found = weights(n, factor, "cubic") @ (y**2 - 3 * y)
    # where no ghost cell takes part: between the second and the last but one centre
    within = (fine >= y[1]) & (fine <= y[-2])
    assert within.sum() == factor * (n - 3)
    np.testing.assert_allclose(found[within], (fine**2 - 3 * fine)[within], rtol=1e-12, atol=1e-10)
    assert np.abs(found - (fine**2 - 3 * fine)).max() > 0.05
    # and linear is not
    np.testing.assert_array_less(0.01, np.abs(weights(n, factor) @ y**2 - fine**2)[within].max())


def test_cubic_meets_the_values_at_centres_and_stays_near_at_the_rim():
    values = np.array([0.0, 1, 0, 0, 1, 0])
    assert (weights(6, 5, "cubic") @ values)[2::5] == pytest.approx(values)
    rows = weights(8, 8, "cubic")
    np.testing.assert_allclose(rows.sum(axis=1), 1)
    assert np.abs(rows).sum(axis=1).max() < 2


def test_a_grid_of_two_cells_is_cubic_too():
    np.testing.assert_allclose(weights(2, 4, "cubic") @ [0.0, 1.0], weights(2, 4) @ [0.0, 1.0], atol=1e-12)


@pytest.mark.parametrize("factor", [1, 2, 8])
def test_torch_gives_what_numpy_gives(factor):
    fields = np.random.default_rng(1).standard_normal((2, 3, 4, 6)).astype(np.float32)
    found = Upsample(factor)(torch.from_numpy(fields))
    np.testing.assert_allclose(found.numpy(), interpolate(fields, factor, "linear"), atol=1e-6)
    double = Upsample(factor)(torch.from_numpy(fields).double())
    assert double.dtype == torch.float64
    np.testing.assert_allclose(double.numpy(), interpolate(fields, factor, "linear"), atol=1e-6)


def test_torch_carries_gradients_and_no_state():
    upsample = Upsample(4)
    x = torch.ones(1, 1, 3, 3, requires_grad=True)
    upsample(x).sum().backward()
    # what a cell gives to all points is the sum over its column of weights, in both directions
    share = torch.from_numpy(weights(3, 4).sum(axis=0).copy()).float()
    torch.testing.assert_close(x.grad, (share[:, None] * share)[None, None])
    assert not upsample.state_dict()


def test_weights_are_kept_and_cannot_be_changed():
    assert weights(5, 3) is weights(5, 3)
    for matrix in (weights(5, 3), weights(5, 3, "cubic"), weights(5, 1)):
        with pytest.raises(ValueError, match="read-only"):
            matrix[0, 0] = 2


@pytest.mark.parametrize("method", ["linear", "cubic"])
def test_one_cell_is_too_few(method):
    with pytest.raises(InputError, match="1 coarse cells along an axis: interpolation needs at least 2"):
        weights(1, 8, method)
    assert weights(1, 1, method) == 1
