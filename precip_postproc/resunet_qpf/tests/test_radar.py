"""What the radars see, and the analysis."""

import numpy as np
import pytest

from precip_postproc.resunet_qpf.periodic import PeriodicGrid
from precip_postproc.resunet_qpf.radar import (
    SITES,
    Beam,
    Outage,
    RadarNetwork,
    Site,
    analyse,
    blockage,
    catch,
    distance_to,
    least_reported,
)
from precip_postproc.resunet_qpf.random_fields import Stream, make_rng
from precip_postproc.resunet_qpf.terrain import make_height

GRID = PeriodicGrid()


@pytest.fixture(scope="module")
def network() -> RadarNetwork:
    return RadarNetwork(GRID.crop(make_height(GRID, make_rng(0, Stream.TERRAIN))), GRID.spacing)


# Beam


def test_beam_rises_over_the_round_earth():
    assert Beam().height(0.0) == pytest.approx(0.3)
    # 0.5 degrees up and 4/3 of the earth's radius
    assert Beam().height(100.0) == pytest.approx(0.3 + 0.8727 + 0.5882, abs=1e-4)
    assert Beam().height(230.0) == pytest.approx(5.419, abs=1e-3)


def test_quality_falls_with_the_height_of_the_beam():
    quality = Beam().height_quality([0.0, 50.0, 130.0, 200.0, 230.0, 230.1])
    height = Beam().height(130.0)
    assert quality[0] == quality[1] == 1
    assert quality[2] == pytest.approx(np.exp(-(((height - 1) / 2.6) ** 2)))
    assert quality[2] > 0.6
    assert (np.diff(quality[2:]) < 0).all()
    assert quality[-1] == 0


def test_an_antenna_stands_on_the_ground():
    assert Beam().on_ground(0.1) == Beam()
    assert Beam().on_ground(1.2).start == pytest.approx(1.23)
    height = np.full((40, 40), 2000.0)
    quality = RadarNetwork(height, 4.0, (Site(80.0, 80.0),)).quality
    assert quality[20, 20] > 0.8


# Blockage


def test_flat_land_blocks_nothing():
    for site in SITES:
        np.testing.assert_array_equal(blockage(np.zeros(GRID.shape), site, 4.0), 0)
    flat = RadarNetwork(np.zeros(GRID.shape), 4.0)
    expected = [Beam().height_quality(distance_to(site, GRID.shape, 4.0)) for site in SITES]
    np.testing.assert_allclose(flat.quality, np.max(expected, axis=0), rtol=1e-6)


def test_a_wall_blocks_what_is_behind_it():
    height = np.zeros((21, 60))
    height[:, 25:28] = 2000.0
    blocked = blockage(height, Site(20.0, 40.0), 4.0)  # at row 10, column 5
    assert (blocked[:, :24] == 0).all()
    # 80 km away the axis is at 1.374 km and the beam 1.4 km wide
    expected = (2.0 - Beam().height(80.0) - 0.2) / np.radians(80)
    assert 0.2 < expected < 0.5
    np.testing.assert_allclose(blocked[10, 25:55], expected, rtol=1e-6)
    assert (np.diff(blocked[10]) >= 0).all()
    assert (blocked[:, 30] > 0).all()
    height[:, 25:28] = 6000.0
    assert blockage(height, Site(20.0, 40.0), 4.0)[10, 40] == 1
    # a low hill near the radar hides as much as a high one far away
    near = np.zeros((21, 60))
    near[:, 8] = 1000 * (Beam().height(12.0) + 0.2 + 0.5 * np.radians(12.0))
    assert blockage(near, Site(20.0, 40.0), 4.0)[10, 20] == pytest.approx(0.5)


def test_nothing_is_blocked_beyond_the_range():
    height = np.zeros((3, 80))
    height[:, 5] = 6000.0
    blocked = blockage(height, Site(0.0, 4.0), 4.0)
    assert (blocked[:, 6:57] == 1).all()
    assert (blocked[:, 59:] == 0).all()


# Network


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_three_quarters_of_the_region_are_seen_well(seed):
    network = RadarNetwork(GRID.crop(make_height(GRID, make_rng(seed, Stream.TERRAIN))), GRID.spacing)
    assert network.quality.shape == GRID.shape
    assert network.quality.dtype == np.float32
    assert 0 <= network.quality.min() <= network.quality.max() <= 1
    assert (network.quality >= 0.5).mean() == pytest.approx(0.74, abs=0.05)
    assert 0.001 < (network.quality <= 0.01).mean() < 0.02
    # every radar sees something, and each has points of its own
    assert (network.qualities.max(axis=(1, 2)) > 0.5).all()
    assert sum(network.exclusive(radar).any() for radar in range(5)) >= 4


def test_a_radar_that_is_off_leaves_its_own_area_without_coverage(network):
    days = np.array(["2025-12-03", "2025-12-07"], "datetime64[D]")
    outage = Outage(3, days)
    off = network.quality_at(np.datetime64("2025-12-07T18"), outage)
    on = network.quality_at(np.datetime64("2025-12-08T00"), outage)
    np.testing.assert_array_equal(on, network.quality)
    own = network.exclusive(3)
    assert own.mean() > 0.02
    assert (off[own] == -3).all()
    np.testing.assert_array_equal(off[~own], network.qualities[[0, 1, 2, 4]].max(axis=0)[~own])
    assert (off >= 0)[~own].all()
    assert off.dtype == np.float32


def test_outage_is_on_three_of_the_days(network):
    days = np.arange("2025-12-01", "2025-12-30", dtype="datetime64[D]")
    outage = network.draw_outage(days, np.random.default_rng(0))
    assert len(np.unique(outage.days)) == 3
    assert np.isin(outage.days, days).all()
    assert network.exclusive(outage.radar).any()
    again = network.draw_outage(days.astype("datetime64[h]"), np.random.default_rng(0))
    assert again.radar == outage.radar
    np.testing.assert_array_equal(again.days, outage.days)
    assert len(network.draw_outage(days[:2], np.random.default_rng(0)).days) == 2


# Analysis


def test_catch_falls_to_a_third_where_nothing_is_seen():
    np.testing.assert_allclose(catch([-3.0, 0.0, 0.25, 0.5, 1.0]), [0.35, 0.35, 0.675, 1, 1])


def test_analysis_is_quantised_and_has_no_trace_amounts():
    amount = np.random.default_rng(1).gamma(0.4, 3.0, (200, 300)).astype(np.float32)
    analysis = analyse(amount, np.ones_like(amount), np.random.default_rng(0))
    assert analysis.dtype == np.float32
    np.testing.assert_allclose(analysis * 10, np.rint(analysis * 10), atol=1e-4)
    wet = analysis[analysis > 0]
    assert wet.min() == np.float32(0.3)
    assert analysis[amount < 0.15].max() == 0
    assert (analyse(0 * amount, np.ones_like(amount), np.random.default_rng(0)) == 0).all()


def test_noise_is_lognormal_of_mean_one():
    amount = np.full((200, 300), 20.0, np.float32)
    ratio = analyse(amount, np.ones_like(amount), np.random.default_rng(0)) / 20
    assert ratio.mean() == pytest.approx(1.0, abs=2e-3)
    assert np.log(ratio).std() == pytest.approx(0.12, abs=1e-3)
    np.testing.assert_allclose([np.corrcoef(ratio[1:].ravel(), ratio[:-1].ravel())[0, 1]], 0, atol=0.02)


@pytest.mark.parametrize(("quality", "part"), [(0.0, 0.35), (-3.0, 0.35), (0.25, 0.675), (0.5, 1.0), (0.9, 1.0)])
def test_analysis_has_too_little_where_quality_is_bad(quality, part):
    amount = np.full((100, 100), 10.0, np.float32)
    analysis = analyse(amount, np.full_like(amount, quality), np.random.default_rng(0))
    assert analysis.mean() == pytest.approx(10 * part, rel=5e-3)


@pytest.mark.parametrize(("threshold", "least"), [(0.25, 0.25), (0.1, 0.25), (0.3, 0.25), (1.0, 0.95), (2.5, 2.45)])
def test_least_amount_that_is_reported_as_a_threshold(threshold, least):
    assert least_reported(threshold) == pytest.approx(least)
    # without noise: a hair more reaches the threshold, a hair less does not
    for factor, reached in ((1.001, True), (0.999, False)):
        reported = np.rint(10 * factor * least) / 10
        assert (reported >= max(threshold, 0.25) - 1e-4) == reached
