import gc
import threading
import time
from functools import partial
from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
import xarray as xr
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, Subset

from ai4sim.flat import make_flat
from ai4sim.loading import BatchDataset, BatchLoader, BlockBatchSampler, BufferPool
from ai4sim.schema import Schema, Variable
from ai4sim.speed import reading_speed
from ai4sim.store import Region, build_store, make_template

N = 200
RNG = np.random.default_rng(6)
ARRAYS = {"x": RNG.standard_normal((N, 7), np.float32), "y": RNG.standard_normal((N, 3), np.float32)}
SCHEMA = Schema("columns", 1, tuple(Variable(name, ("sample", f"{name}_axis"), "1") for name in ARRAYS))


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("loading")
    (folder / "raw").touch()

    def part(rows: slice) -> xr.Dataset:
        return xr.Dataset({name: (SCHEMA[name].dims, values[rows]) for name, values in ARRAYS.items()})

    build_store(
        folder / "s.zarr",
        template=make_template(SCHEMA, {"sample": N, "x_axis": 7, "y_axis": 3}, {"sample": 16}),
        regions=[Region("all", {"sample": slice(0, N)}, partial(part, slice(0, N)))],
        sources=[folder / "raw"],
        schema=SCHEMA,
        settings={},
        progress=False,
    )
    return folder / "s.zarr"


@pytest.fixture
def dataset(store) -> BatchDataset:
    return BatchDataset(store, ["x", "y"])


def make_loader(dataset, batch_size=16, **options) -> BatchLoader:
    sampler = {k: options.pop(k) for k in ("shuffle", "rank", "world_size", "drop_last") if k in options}
    return BatchLoader(dataset, BlockBatchSampler(N, batch_size, block=16, window=3, **sampler), **options)


def check(batch) -> list[int]:
    rows = batch["index"]
    for name, values in ARRAYS.items():
        np.testing.assert_array_equal(batch[name].numpy(), values[rows.numpy()])
    return rows.tolist()


def test_a_batch_is_a_dictionary_of_tensors(dataset):
    batch = dataset.__getitems__([3, 1, 150])
    assert {name: tensor.shape for name, tensor in batch.items()} == {"x": (3, 7), "y": (3, 3), "index": (3,)}
    assert batch["x"].dtype == torch.float32
    assert check(batch) == [3, 1, 150]
    assert len(dataset) == N


def test_a_sample_has_no_batch_axis(dataset):
    np.testing.assert_array_equal(dataset[-1]["x"].numpy(), ARRAYS["x"][-1])
    assert dataset[5]["index"] == 5
    with pytest.raises(IndexError, match=r"row 200 asked for, .*s\.zarr has 200"):
        dataset[N]


def test_torch_loaders_and_subsets_ask_for_whole_batches(dataset):
    loader = DataLoader(Subset(dataset, list(range(50, 60))), batch_size=4, collate_fn=lambda batch: batch)
    assert [row for batch in loader for row in check(batch)] == list(range(50, 60))


@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_flat_copies_load_alike(store, tmp_path, dtype):
    flat = BatchDataset(make_flat(store, tmp_path / dtype, dtype=dtype), ["x", "y"])
    for batch in make_loader(flat, shuffle=True):
        expected = ARRAYS["x"][batch["index"].numpy()]
        # half a step of int16 over a range of about 7
        np.testing.assert_allclose(batch["x"].numpy(), expected, rtol=0, atol=0 if dtype == "float32" else 7e-5)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_every_row_comes_once_and_epochs_differ(dataset, num_workers):
    dataset.read([0, 100])  # a read in the parent: workers must neither hang nor share its state
    loader = make_loader(dataset, shuffle=True, drop_last=False, num_workers=num_workers)
    epochs = []
    for epoch in (0, 1, 0):
        loader.set_epoch(epoch)
        epochs.append([row for batch in loader for row in check(batch)])
        assert sorted(epochs[-1]) == list(range(N))
    assert epochs[0] == epochs[2] != epochs[1]


def test_ranks_with_workers_share_the_rows_out(dataset):
    loaders = [make_loader(dataset, 12, rank=rank, world_size=3, prefetch=1) for rank in range(3)]
    assert [len(loader) for loader in loaders] == [5, 6, 6]
    assert [row for loader in loaders for batch in loader for row in check(batch)] == list(range(N))


class TestBufferPool:
    def test_a_buffer_serves_again_once_it_is_free(self):
        pool = BufferPool()
        first = pool.take((4, 3), np.dtype(np.float32))
        address = first.data_ptr()
        assert pool.take((4, 3), np.dtype(np.float32)).data_ptr() != address
        del first
        assert pool.take((4, 3), np.dtype(np.float32)).data_ptr() == address
        # a smaller batch, such as the last of an epoch, fits into it too
        assert pool.take((2, 3), np.dtype(np.float32)).data_ptr() == address
        assert pool.take((4, 3), np.dtype(np.int32)).data_ptr() != address

    @pytest.mark.parametrize(
        "keep",
        [
            lambda t: t[1:2, 0],
            lambda t: t.view(-1),
            lambda t: t.numpy(),
            lambda t: t.detach(),
            lambda t: {"batch": [t]},
            lambda t: (t * torch.ones(3, requires_grad=True)).sum(),  # saved for the backward pass
            lambda t: t.untyped_storage(),
        ],
    )
    def test_a_buffer_is_not_used_again_while_anything_shares_it(self, keep):
        pool = BufferPool()
        tensor = pool.take((4, 3), np.dtype(np.float32))
        address = tensor.data_ptr()
        kept = keep(tensor)
        del tensor
        gc.collect()
        assert pool.take((4, 3), np.dtype(np.float32)).data_ptr() != address
        del kept
        gc.collect()
        assert pool.take((4, 3), np.dtype(np.float32)).data_ptr() == address

    def test_it_keeps_a_bounded_number_of_buffers(self):
        pool = BufferPool(keep=2)
        held = [pool.take((4, 3), np.dtype(np.float32)) for _ in range(5)]
        assert len({tensor.data_ptr() for tensor in held}) == 5
        (buffers,) = pool._buffers.values()
        assert len(buffers) == 2


def test_batches_that_are_held_are_never_overwritten(dataset):
    loader = make_loader(dataset, shuffle=True)
    held = [batch for epoch in range(3) for batch in loader]
    assert len({batch["x"].data_ptr() for batch in held}) == len(held)
    for batch in held:
        check(batch)


def test_gradients_see_the_values_of_their_own_batch(dataset):
    weight = torch.zeros(7, requires_grad=True)
    losses, rows = [], []
    for batch in make_loader(dataset):
        rows.append(batch["index"].numpy())
        losses.append((batch["x"] * weight).sum())
        del batch
    for loss, index in zip(losses, rows, strict=True):
        (gradient,) = torch.autograd.grad(loss, weight)
        np.testing.assert_allclose(gradient.numpy(), ARRAYS["x"][index].sum(axis=0), rtol=1e-5, atol=1e-5)


def test_a_loop_that_lets_go_works_in_a_few_buffers(dataset):
    addresses = {batch["x"].data_ptr() for _ in range(3) for batch in make_loader(dataset)}
    assert len(addresses) <= 5


class _Failing(BatchDataset):
    def read(self, indices, *, pin_memory=False):
        if 100 in indices:
            raise OSError("the disk is gone")
        return super().read(indices, pin_memory=pin_memory)


def prefetch_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("ai4sim-prefetch")]


def test_errors_of_the_thread_reach_the_consumer_after_the_good_batches(store):
    rows: list[int] = []

    def consume() -> None:
        for batch in make_loader(_Failing(store, ["x", "y"])):
            rows.extend(check(batch))

    with pytest.raises(OSError, match="the disk is gone"):
        consume()
    assert rows == list(range(96))
    assert not prefetch_threads()


def test_a_consumer_that_stops_early_leaves_no_thread(dataset):
    for _ in make_loader(dataset):
        assert prefetch_threads()
        break
    gc.collect()
    assert not prefetch_threads()


def test_batches_are_read_ahead_but_not_without_bound(store):
    class Counting(BatchDataset):
        count = 0

        def read(self, indices, *, pin_memory=False):
            self.count += 1
            return super().read(indices, pin_memory=pin_memory)

    dataset = Counting(store, ["x", "y"])
    batches = iter(make_loader(dataset, prefetch=2))
    next(batches)
    for _ in range(200):
        if dataset.count == 3:
            break
        time.sleep(0.01)
    time.sleep(0.05)
    assert dataset.count == 3
    batches.close()


def test_an_epoch_interrupted_goes_on_where_it_was(dataset):
    loader = make_loader(dataset, shuffle=True)
    loader.set_epoch(3)
    whole = [check(batch) for batch in loader]
    batches = iter(loader)
    begun = [check(next(batches)) for _ in range(5)]
    state = loader.state_dict()
    batches.close()
    assert state == {"epoch": 3, "batches": 5}

    resumed = make_loader(dataset, shuffle=True)
    resumed.load_state_dict(state)
    resumed.set_epoch(3)
    assert begun + [check(batch) for batch in resumed] == whole
    assert len([check(batch) for batch in resumed]) == len(whole)  # only once
    # the state of another epoch, or of one that was finished, leaves nothing out
    resumed.load_state_dict({"epoch": 2, "batches": 5})
    assert len(list(resumed)) == len(whole)
    resumed.load_state_dict({"epoch": 3, "batches": len(whole)})
    assert len(list(resumed)) == len(whole)


class _Recorder(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(7))
        self.seen: list[list[int]] = []
        self.tested: list[int] = []

    def training_step(self, batch, batch_idx):
        self.seen.append(check(batch))
        return (batch["x"] @ self.weight).square().mean()

    def test_step(self, batch, batch_idx):
        self.tested += check(batch)

    def configure_optimizers(self):
        return torch.optim.SGD([self.weight], lr=0.1)


def make_trainer(tmp_path, **options) -> lightning.Trainer:
    return lightning.Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **options,
    )


def test_lightning_sets_the_epoch_and_resumes_within_one(dataset, tmp_path):
    saver = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=17, save_top_k=-1)
    straight = _Recorder()
    make_trainer(tmp_path, max_epochs=3, callbacks=[saver]).fit(straight, make_loader(dataset, shuffle=True))
    assert len(straight.seen) == 36
    epochs = [straight.seen[k : k + 12] for k in (0, 12, 24)]
    assert epochs[0] != epochs[1] != epochs[2]
    expected = make_loader(dataset, shuffle=True)
    expected.set_epoch(2)
    assert epochs[2] == [check(batch) for batch in expected]

    resumed = _Recorder()
    make_trainer(tmp_path, max_epochs=3, enable_checkpointing=False).fit(
        resumed, make_loader(dataset, shuffle=True), ckpt_path=tmp_path / "step=17.ckpt", weights_only=True
    )
    assert resumed.seen == straight.seen[17:]
    torch.testing.assert_close(resumed.weight, straight.weight)


def test_lightning_tests_every_row_in_order(dataset, tmp_path):
    module = _Recorder()
    make_trainer(tmp_path).test(module, make_loader(dataset), verbose=False)
    assert module.tested == list(range(N))


def test_mistakes_are_named(store, dataset):
    with pytest.raises(ValueError, match=r"variables are \['index'\]; name at least one, and none 'index'"):
        BatchDataset(store, ["index"])
    with pytest.raises(ValueError, match="prefetch is 0"):
        make_loader(dataset, prefetch=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_are_read_into_page_locked_memory(dataset):
    for batch in make_loader(dataset):
        assert batch["x"].is_pinned()
        check({name: tensor.to("cuda", non_blocking=True).cpu() for name, tensor in batch.items()})


def test_reading_speed_counts_samples_and_bytes_of_several_epochs(store):
    loader = BatchLoader(BatchDataset(store, ["x", "y"]), BlockBatchSampler([slice(0, N)], 64, shuffle=False))
    speed = reading_speed(loader, 0.2)
    epochs, rest = divmod(speed.batches, 4)  # 64, 64, 64 and 8 rows
    assert epochs > 1
    assert speed.samples == epochs * N + 64 * rest
    assert speed.bytes == speed.samples * (4 * (7 + 3) + 8)  # and the row's number
    assert speed.seconds >= 0.2
    assert speed.samples_per_second == pytest.approx(speed.samples / speed.seconds)


def test_reading_speed_refuses_an_empty_loader():
    with pytest.raises(ValueError, match="gives no batch"):
        reading_speed([], 1.0)
