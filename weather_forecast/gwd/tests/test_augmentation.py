"""Augmented columns are exact samples of the scheme."""

import numpy as np
import pytest
import torch
from torch import Tensor

from weather_forecast.gwd.augmentation import random_symmetry
from weather_forecast.gwd.columns import generate_columns
from weather_forecast.gwd.layout import ColumnLayout
from weather_forecast.gwd.levels import L91
from weather_forecast.gwd.scheme import SchemeParameters, gravity_wave_drag

LAYOUT = ColumnLayout()


@pytest.fixture(scope="module")
def pairs() -> tuple[Tensor, Tensor]:
    """Columns (40, 191) and their tendencies (40, 126), float64."""
    columns = generate_columns(40, np.random.default_rng(0))
    x = torch.from_numpy(columns.inputs()).double()
    return x, torch.from_numpy(drag(x, 4))


def drag(x: Tensor, n_azimuths: int) -> np.ndarray:
    u, v, t = (x[:, LAYOUT.slice_of(name)].numpy() for name in ("u", "v", "t"))
    half = L91.truncate(63).half_pressure(x[:, 189].numpy())
    result = gravity_wave_drag(u, v, t, half, parameters=SchemeParameters(n_azimuths=n_azimuths, n_speeds=12))
    return np.concatenate([result.dudt, result.dvdt], 1)


@pytest.mark.parametrize("n_azimuths", [4, 8])
def test_augmented_pairs_satisfy_the_scheme(n_azimuths: int, pairs: tuple[Tensor, Tensor]) -> None:
    x, _ = pairs
    y = torch.from_numpy(drag(x, n_azimuths))
    turned_x, turned_y = random_symmetry(x, y, LAYOUT, torch.Generator().manual_seed(0))
    assert not torch.equal(turned_x, x)
    np.testing.assert_allclose(drag(turned_x, n_azimuths), turned_y.numpy(), rtol=0, atol=1e-11 * y.abs().max())


def test_all_eight_symmetries_occur_equally_often() -> None:
    x = torch.zeros(8000, 191)
    x[:, LAYOUT.slice_of("u")], x[:, LAYOUT.slice_of("v")] = 1.0, 2.0
    turned, _ = random_symmetry(x, torch.zeros(8000, 126), LAYOUT, torch.Generator().manual_seed(0))
    images, counts = torch.unique(turned[:, [0, 63]], dim=0, return_counts=True)
    assert {tuple(image) for image in images.tolist()} == {(a, b) for a in (1, -1) for b in (2, -2)} | {
        (a, b) for a in (2, -2) for b in (1, -1)
    }
    assert counts.min() > 880
    # one symmetry per column, for all its levels
    assert (turned[:, LAYOUT.slice_of("u")] == turned[:, :1]).all()


def test_temperature_scalars_and_arguments_are_untouched(pairs: tuple[Tensor, Tensor]) -> None:
    x, y = pairs
    before_x, before_y = x.clone(), y.clone()
    turned_x, turned_y = random_symmetry(x, y, LAYOUT, torch.Generator().manual_seed(0))
    assert torch.equal(turned_x[:, 126:], x[:, 126:])
    assert torch.equal(x, before_x)
    assert torch.equal(y, before_y)
    torch.testing.assert_close(turned_y.square().sum(1), y.square().sum(1))


def test_reproducible_by_its_generator(pairs: tuple[Tensor, Tensor]) -> None:
    first, _ = random_symmetry(*pairs, LAYOUT, torch.Generator().manual_seed(1))
    again, _ = random_symmetry(*pairs, LAYOUT, torch.Generator().manual_seed(1))
    other, _ = random_symmetry(*pairs, LAYOUT, torch.Generator().manual_seed(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_batch_without_rows() -> None:
    x, y = random_symmetry(torch.zeros(0, 191), torch.zeros(0, 126), LAYOUT)
    assert x.shape == (0, 191)
    assert y.shape == (0, 126)
