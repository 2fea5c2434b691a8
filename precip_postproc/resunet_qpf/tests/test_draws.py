"""Which patches a training sees."""

import numpy as np
import pytest

from ai4sim.errors import InputError
from precip_postproc.resunet_qpf.draws import PatchSampler, RowSampler, Strata, fill_quotas

SHAPE, PATCH = (64, 80), (32, 32)
PEAKS = np.array([0.0, 1.0, 5.0, 20.0], np.float32)
"""One in each of the usual strata."""


def uniform(strata: np.ndarray) -> np.ndarray:
    """Peaks of cases, each with the same amount everywhere."""
    return np.broadcast_to(PEAKS[strata][:, None, None], (len(strata), 8, 10))


def make(cases=None, leads=None, **changes) -> PatchSampler:
    """A sampler of cases of these strata, by default of ten of each; the first half has another lead time."""
    cases = np.tile(np.arange(4), 10) if cases is None else np.asarray(cases)
    leads = np.repeat([6, 24], (len(cases) + 1) // 2)[: len(cases)] if leads is None else leads
    settings = {"patch": PATCH, "n_patches": 200, "batch_size": 10, "strata": Strata()} | changes
    return PatchSampler(100 + np.arange(len(cases)), leads, uniform(cases), SHAPE, **settings)


def flat(sampler: PatchSampler) -> np.ndarray:
    """All draws of an epoch (patch, 3): row and corner."""
    return np.concatenate([np.column_stack([draw.rows, draw.corners]) for draw in sampler])


class TestStrata:
    def test_edges_belong_to_the_stratum_above(self):
        found = Strata().of(np.array([0, 0.0999, 0.1, 2.4999, 2.5, 10, 75], np.float32))
        assert found.tolist() == [0, 0, 1, 1, 2, 3, 3]

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"shares": [0.5, 0.5]}, r"3 edges need 4 shares that sum to 1, not \[0\.5, 0\.5\]"),
            ({"shares": [0.3, 0.3, 0.3, 0.3]}, "need 4 shares that sum to 1"),
            ({"shares": [-0.1, 0.5, 0.3, 0.3]}, "need 4 shares that sum to 1"),
            ({"edges": [0.1, 10.0, 2.5]}, r"edges must increase, not \[0\.1, 10\.0, 2\.5\]"),
        ],
    )
    def test_impossible_settings(self, settings, message):
        with pytest.raises(InputError, match=message):
            Strata(**settings)


class TestOrder:
    def test_draws_follow_from_seed_and_epoch(self):
        sampler, same = make(seed=3), make(seed=3)
        np.testing.assert_array_equal(flat(sampler), flat(same))
        np.testing.assert_array_equal(flat(sampler), flat(sampler))
        first = flat(sampler)
        sampler.sampler.set_epoch(1)
        assert not np.array_equal(first, flat(sampler))
        same.set_epoch(1)
        np.testing.assert_array_equal(flat(sampler), flat(same))
        assert not np.array_equal(first, flat(make(seed=4)))

    def test_batches(self):
        batches = list(make())
        assert len(batches) == len(make()) == 20
        assert all(len(draw.rows) == len(draw.weights) == 10 and draw.corners.shape == (10, 2) for draw in batches)
        assert batches[0].weights.dtype == np.float32
        assert len(make(n_patches=209)) == 20

    def test_ranks_share_the_draws_of_one_process(self):
        whole = flat(make(batch_size=20)).reshape(10, 2, 10, 3)
        for rank in range(2):
            np.testing.assert_array_equal(flat(make(rank=rank, world_size=2)).reshape(10, 10, 3), whole[:, rank])

    def test_strata_are_mixed_within_batches(self):
        batches = np.array([draw.rows for draw in make()]) % 4
        assert all(len(set(batch.tolist())) > 1 for batch in batches)


class TestQuotas:
    def test_strata_and_leads_have_their_shares(self):
        draw = make().draw(200)
        for half in (draw.rows < 120, draw.rows >= 120):
            assert half.sum() == 100
            assert np.bincount(draw.rows[half] % 4, minlength=4).tolist() == [30, 40, 20, 10]
        assert (draw.weights == 1).all()

    def test_three_leads_and_a_number_that_they_do_not_divide(self):
        draw = make(np.zeros(9, int), leads=np.repeat([6, 12, 24], [1, 2, 6])).draw(200)
        lead = np.repeat([0, 1, 2], [1, 2, 6])[draw.rows - 100]
        assert np.bincount(lead).tolist() == [66, 67, 67]

    def test_what_an_empty_stratum_lacks_the_others_share(self):
        draw = make(np.tile([0, 1], 20)).draw(200)
        dry, light = np.bincount((draw.rows - 100) % 2)
        assert (dry, light) == (90, 110)
        assert len(make(np.zeros(4, int)).draw(50).rows) == 50

    def test_rare_strata_are_drawn_as_far_as_they_go(self):
        # one case in four hundred is heavy: some 3 of the 1200 candidates, where 10 are wanted
        strata = np.tile([0, 1, 2, 0], 100)
        strata[7] = 3
        draw = make(strata, leads=np.full(400, 6)).draw(100)
        assert 0 < (draw.rows == 107).sum() < 10
        dry, light, moderate = (np.isin(draw.rows - 100, np.flatnonzero(strata == k)).sum() for k in range(3))
        assert 30 < dry < 34
        assert 40 < light < 44
        assert 20 < moderate < 24

    def test_no_patch_is_drawn_twice_as_the_same_candidate(self):
        seen = flat(make(n_patches=400))
        # 33 * 49 places, and more at the border
        assert len(np.unique(seen, axis=0)) > 0.9 * len(seen)

    def test_quotas_are_whole_within_what_is_there_and_sum_up(self):
        rng = np.random.default_rng(0)
        for _ in range(200):
            total = int(rng.integers(1, 60))
            available = rng.integers(0, 40, 5)
            available[rng.integers(5)] += total
            wanted = rng.dirichlet(np.ones(5)) * total
            quotas = fill_quotas(wanted, available, total)
            assert quotas.sum() == total
            assert (quotas >= 0).all()
            assert (quotas <= available).all()
            if (available >= np.ceil(wanted)).all():
                assert (np.abs(quotas - wanted) < 1).all()


class TestPlaces:
    def test_every_point_is_reached(self):
        draw = make(np.zeros(4, int), n_patches=6000).draw(6000)
        assert draw.corners.min(axis=0).tolist() == [0, 0]
        assert draw.corners.max(axis=0).tolist() == [32, 48]
        seen = np.zeros(SHAPE, int)
        for top, left in draw.corners:
            seen[top : top + 32, left : left + 32] += 1
        middle = seen[28:36, 32:48].mean()
        assert min(seen[0, 0], seen[0, -1], seen[-1, 0], seen[-1, -1]) > 0.03 * middle
        assert min(side.mean() for side in (seen[0], seen[-1], seen[:, 0], seen[:, -1])) > 0.15 * middle

    def test_a_patch_as_large_as_the_domain(self):
        draw = make(patch=SHAPE).draw(20)
        assert not draw.corners.any()

    @pytest.mark.parametrize("side", [8, 12, 20, 23, 32])
    def test_a_patch_belongs_to_the_stratum_of_the_largest_block_that_it_touches(self, side):
        rng = np.random.default_rng(side)
        peaks = rng.gamma(0.3, 3, (6, 8, 10)).astype(np.float32)
        leads = np.full(6, 6)
        options = {"patch": (side, side), "n_patches": 10, "batch_size": 10, "strata": Strata()}
        sampler = PatchSampler(np.arange(6), leads, peaks, SHAPE, **options)
        cases = rng.integers(0, 6, 300)
        corners = np.column_stack([rng.integers(0, size - side + 1, 300) for size in SHAPE])
        expected = [
            peaks[case, top // 8 : (top + side - 1) // 8 + 1, left // 8 : (left + side - 1) // 8 + 1].max()
            for case, (top, left) in zip(cases, corners, strict=True)
        ]
        np.testing.assert_array_equal(sampler._patch_peaks(cases, corners), expected)

    def test_wet_patches_of_a_case_are_found_by_place(self):
        # rain in one corner block of every case
        peaks = np.zeros((10, 8, 10), np.float32)
        peaks[:, -1, -1] = 5
        leads = np.full(10, 6)
        options = {"patch": PATCH, "n_patches": 500, "batch_size": 10, "strata": Strata(shares=[0.5, 0, 0.5, 0])}
        draw = PatchSampler(np.arange(10), leads, peaks, SHAPE, **options).draw(500)
        touching = (draw.corners[:, 0] + 31 >= 56) & (draw.corners[:, 1] + 31 >= 72)
        assert touching.sum() == 250


class TestWeights:
    STRATA = np.repeat([0, 1, 2, 3], [60, 25, 12, 3])

    def estimates(self, *, reweight: bool) -> np.ndarray:
        """Mean losses of 150 epochs; a case's loss is a number of its own."""
        strata = np.random.default_rng(1).permutation(self.STRATA)
        sampler = make(strata, leads=np.tile([6, 24], 50), strata=Strata(reweight=reweight))
        self.losses = np.random.default_rng(2).gamma(2, 1, 100) + strata**2
        means = []
        for epoch in range(150):
            sampler.set_epoch(epoch)
            draw = sampler.draw(200)
            means.append((draw.weights * self.losses[draw.rows - 100]).mean())
        return np.array(means)

    def test_weighted_losses_estimate_the_mean_over_the_domain(self):
        means = self.estimates(reweight=True)
        error = means.std() / np.sqrt(len(means))
        assert abs(means.mean() - self.losses.mean()) < 4 * error
        assert error < 0.02
        # drawn patches are wetter than the domain
        assert self.estimates(reweight=False).mean() > self.losses.mean() + 0.5

    def test_weights_are_natural_over_drawn_shares_and_at_most_10(self):
        strata = np.repeat([0, 1], [70, 30])
        shares = Strata(shares=[0.02, 0.98, 0, 0], reweight=True)
        draw = make(strata, leads=np.full(100, 6), strata=shares).draw(100)
        dry = draw.rows < 170
        assert dry.sum() == 2
        assert draw.weights[dry].tolist() == [10, 10]  # 0.7 / 0.02
        assert draw.weights[~dry] == pytest.approx(0.3 / 0.98, rel=0.15)
        milder = make(strata, leads=np.full(100, 6), strata=Strata(shares=[0.1, 0.9, 0, 0], reweight=True)).draw(100)
        assert milder.weights[milder.rows < 170] == pytest.approx(7, rel=0.15)

    def test_weights_are_1_on_average(self):
        sampler = make(strata=Strata(reweight=True))
        assert sampler.draw(200).weights.mean() == pytest.approx(1)


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"patch": (96, 64)}, r"data\.patch 96 x 64 is larger than the domain 64 x 80"),
            ({"n_patches": 9}, "patches_per_epoch 9 is less than one batch of 10 on each of 1 processes"),
            ({"n_patches": 39, "world_size": 4}, "39 is less than one batch of 10 on each of 4"),
        ],
    )
    def test_impossible_settings(self, changes, message):
        with pytest.raises(InputError, match=message):
            make(**changes)

    def test_no_case(self):
        with pytest.raises(InputError, match="there is no training case to draw patches from"):
            make(np.empty(0, int))


def test_rows_come_in_order_and_are_shared_out():
    rows = np.array([3, 4, 7, 8, 9, 12, 20])
    assert [batch.tolist() for batch in RowSampler(rows, 3)] == [[3, 4, 7], [8, 9, 12], [20]]
    parts = [RowSampler(rows, 2, rank=rank, world_size=2) for rank in range(2)]
    found = [[batch.tolist() for batch in part] for part in parts]
    assert [len(part) for part in parts] == [2, 2]
    assert [row for part in found for batch in part for row in batch] == rows.tolist()
    parts[0].sampler.set_epoch(5)
    assert [batch.tolist() for batch in parts[0]] == found[0]
