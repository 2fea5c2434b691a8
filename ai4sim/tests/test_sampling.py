from itertools import pairwise

import numpy as np
import pytest

from ai4sim.errors import InputError
from ai4sim.sampling import BlockBatchSampler, evaluation_batch_size


def rows_of(sampler) -> np.ndarray:
    batches = list(sampler)
    assert len(batches) == len(sampler)
    return np.concatenate(batches)


def test_without_shuffling_rows_come_in_the_order_of_the_ranges():
    sampler = BlockBatchSampler([slice(30, 45), slice(3, 10)], 4, block=8)
    np.testing.assert_array_equal(rows_of(sampler), [*range(30, 45), *range(3, 10)])
    assert [len(batch) for batch in sampler] == [4, 4, 4, 4, 4, 2]


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_evaluation_gives_every_row_to_one_rank_once(shuffle, world_size):
    ranges = [slice(5, 64), slice(100, 141)]
    samplers = [
        BlockBatchSampler(
            ranges, 7, shuffle=shuffle, block=16, window=2, drop_last=False, rank=rank, world_size=world_size
        )
        for rank in range(world_size)
    ]
    rows = np.concatenate([rows_of(sampler) for sampler in samplers])
    np.testing.assert_array_equal(np.sort(rows), [*range(5, 64), *range(100, 141)])
    counts = [len(sampler) for sampler in samplers]
    assert sum(counts) == -(-100 // 7)
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_training_gives_every_rank_the_same_number_of_full_batches_without_repeats(world_size):
    samplers = [
        BlockBatchSampler(103, 5, shuffle=True, block=16, window=2, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    for sampler in samplers:
        assert len(sampler) == 103 // (5 * world_size)
        assert all(len(batch) == 5 for batch in sampler)
    rows = np.concatenate([rows_of(sampler) for sampler in samplers])
    assert len(np.unique(rows)) == len(rows) == len(samplers[0]) * 5 * world_size


def test_other_rows_are_left_out_in_other_epochs():
    sampler = BlockBatchSampler(103, 20, shuffle=True, block=8)
    left_out = []
    for epoch in range(4):
        sampler.set_epoch(epoch)
        left_out.append(tuple(np.setdiff1d(np.arange(103), rows_of(sampler))))
    assert len(set(left_out)) > 1


def test_the_order_follows_from_seed_and_epoch_alone():
    def order(seed, epoch):
        sampler = BlockBatchSampler(200, 8, shuffle=True, block=16, window=3, seed=seed)
        sampler.set_epoch(epoch)
        return rows_of(sampler).tolist()

    assert order(0, 3) == order(0, 3)
    assert order(0, 3) != order(0, 4)
    assert order(0, 3) != order(1, 3)
    sampler = BlockBatchSampler(200, 8, shuffle=True, block=16)
    assert rows_of(sampler).tolist() == rows_of(sampler).tolist()


def test_each_block_is_visited_in_one_window_only():
    block, window, batch = 16, 3, 10
    sampler = BlockBatchSampler(480, batch, shuffle=True, block=block, window=window)
    rows = rows_of(sampler)
    for number in range(480 // block):
        places = np.flatnonzero(rows // block == number)
        assert places.max() - places.min() < block * window
    # mixed within the window: successive rows are mostly of different blocks
    assert np.mean([a // block == b // block for a, b in pairwise(rows)]) < 0.5


def test_ranks_read_different_blocks_but_for_the_border():
    samplers = [
        BlockBatchSampler(1600, 10, shuffle=True, block=100, window=2, rank=rank, world_size=4) for rank in range(4)
    ]
    blocks = [set((rows_of(sampler) // 100).tolist()) for sampler in samplers]
    assert sum(len(b) for b in blocks) <= 16 + 3


def test_lightning_finds_set_epoch():
    sampler = BlockBatchSampler(10, 2, shuffle=True)
    sampler.sampler.set_epoch(4)
    assert sampler.epoch == 4


@pytest.mark.parametrize(
    ("ranges", "options", "message"),
    [
        ([slice(0, 10), slice(5, 20)], {}, "ranges overlap at row 5"),
        ([slice(5, 5)], {}, "is empty, open or has a step"),
        ([slice(5, None)], {}, "is empty, open or has a step"),
        ([], {}, "no ranges were given"),
        (10, {"batch_size": 0}, "batch_size is 0; it must be at least 1"),
        (10, {"rank": 2, "world_size": 2}, "rank 2 is outside 0..1"),
        (
            10,
            {"shuffle": True, "batch_size": 6, "world_size": 2},
            "10 rows do not fill one batch of 6 on each of 2",
        ),
    ],
)
def test_mistakes_are_named(ranges, options, message):
    with pytest.raises(ValueError, match=message):
        BlockBatchSampler(ranges, **{"batch_size": 2} | options)


@pytest.mark.parametrize(
    ("n_rows", "world_size", "size"), [(2100, 1, 2100), (2100, 2, 1050), (10, 4, 2), (9000, 2, 4096)]
)
def test_every_process_has_a_batch_of_an_evaluation(n_rows, world_size, size):
    assert evaluation_batch_size(n_rows, 4096, world_size) == size
    for rank in range(world_size):
        assert len(BlockBatchSampler(n_rows, size, rank=rank, world_size=world_size)) >= 1


def test_fewer_rows_than_processes_are_an_error():
    with pytest.raises(InputError, match="3 rows cannot be shared out over 4 processes"):
        evaluation_batch_size(3, 4096, 4)
