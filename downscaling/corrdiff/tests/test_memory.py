"""What a step needs, against what real ones keep, and the batch that is chosen for the memory there is."""

import contextlib
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef

from ai4sim.errors import InputError
from downscaling.corrdiff import memory, module_base
from downscaling.corrdiff.diffusion import Patches, RandomPatches
from downscaling.corrdiff.memory import (
    SHARE,
    StepMemory,
    free_bytes,
    in_words,
    kept_bytes,
    passing_bytes,
    per_image,
    weight_bytes,
)
from downscaling.corrdiff.models import ResidualDiffusionModule
from downscaling.corrdiff.networks import PositionedUNet, SongUNet
from downscaling.corrdiff.regression_module import RegressionModule
from downscaling.corrdiff.sample_counts import SampleAverage
from downscaling.corrdiff.tests.conftest import make_tiny

SMALL = {"model_channels": 8, "channel_mult": (1, 2), "num_blocks": 1, "attn_resolutions": ()}
song = partial(SongUNet, **SMALL)
placed = partial(
    PositionedUNet,
    domain=(48, 48),
    unet=song,
    position="learnable",
    position_channels=3,
    lead_steps=4,
    lead_channels=2,
    probability_channels=(0, 1),
)
attending = partial(SongUNet, **SMALL | {"attn_resolutions": (16,), "resolution": 32})
again = partial(SongUNet, **SMALL | {"checkpoint_level": 1})
CHANNELS = 9
EXAMPLE = StepMemory(
    image=80 * 2**20, shape=(32, 32), images=4, patched=True, at_once=None, fields=2**20, weights=10 * 2**20,
    averaged=True,
)  # fmt: skip


def parts(n, size=32, domain=48):
    """Patches of one size."""
    return RandomPatches(size).draw((domain, domain), n, torch.Generator().manual_seed(0))


def measured(network, patches):
    """What autograd keeps in a real step, without weights."""
    own = {StorageWeakRef(t.untyped_storage()) for t in (*network.parameters(), *network.buffers())}
    kept = {}

    def take_note(tensor):
        storage = tensor.untyped_storage()
        kept[StorageWeakRef(storage)] = storage
        return tensor.detach()

    n = len(patches)
    extras = {}
    if isinstance(network, PositionedUNet):
        extras = {"lead_label": torch.zeros(n, dtype=torch.int64), "corners": patches.corners}
    with saved_tensors_hooks(take_note, lambda tensor: tensor):
        network(torch.randn(n, CHANNELS, *patches.patch), torch.randn(n), **extras)
    return sum(storage.nbytes() for ref, storage in kept.items() if ref not in own)


class TestNetworks:
    @pytest.mark.parametrize("network", [song, placed, attending, again])
    def test_keep_what_is_kept_in_a_real_step(self, network):
        own = network(CHANNELS, 4).train()
        for n in (1, 3):
            assert kept_bytes(own, CHANNELS, parts(n)) == pytest.approx(measured(own, parts(n)), rel=0.02)

    def test_keep_half_in_half_precision(self):
        own = song(CHANNELS, 4).train()
        with torch.autocast("cpu", torch.bfloat16):
            found, expected = kept_bytes(own, CHANNELS, parts(2)), measured(own, parts(2))
        assert found == pytest.approx(expected, rel=0.02)
        assert found == pytest.approx(0.5 * kept_bytes(own, CHANNELS, parts(2)), rel=0.15)

    def test_cast_weights_count_once(self):
        """Under autocast a step keeps weights in half precision, however many images there are."""
        own = song(CHANNELS, 4).train()
        with torch.autocast("cpu", torch.bfloat16):
            image, once = per_image(kept_bytes, own, CHANNELS, parts(1))
            for n in (1, 3, 8):
                assert n * image + once == pytest.approx(measured(own, parts(n)), rel=0.02)
        assert once > 0.3 * sum(p.nbytes for p in own.parameters())
        assert per_image(kept_bytes, own, CHANNELS, parts(1))[1] == 0

    def test_are_left_as_they_are(self):
        own = song(CHANNELS, 4).eval()
        before, numbers = {name: values.clone() for name, values in own.state_dict().items()}, torch.get_rng_state()
        assert kept_bytes(own, CHANNELS, parts(1))
        assert passing_bytes(own, CHANNELS, parts(1))
        assert not own.training
        assert torch.equal(numbers, torch.get_rng_state())
        for name, values in own.state_dict().items():
            assert values.device.type == "cpu"
            assert torch.equal(values, before[name])
        assert all(parameter.grad is None for parameter in own.parameters())

    def test_that_compute_again_keep_less(self):
        assert kept_bytes(again(CHANNELS, 4), CHANNELS, parts(1)) < 0.8 * kept_bytes(
            song(CHANNELS, 4), CHANNELS, parts(1)
        )

    def test_hold_little_without_a_gradient(self):
        """A chain needs two maps at a time, where the gradient needs all."""
        chain = nn.Sequential(*(nn.Conv2d(4, 4, 3, padding=1) for _ in range(8)))

        class Chain(nn.Module):
            def __init__(self):
                super().__init__()
                self.chain = chain

            def forward(self, x, label):
                return self.chain(x)

        one = 4 * 32 * 32 * 4
        assert kept_bytes(Chain(), 4, parts(1)) == 8 * one
        # what is given, the noise's label too, is held by its owner
        assert passing_bytes(Chain(), 4, parts(1)) == 3 * one + 4

    def test_that_look_at_values_are_left_out(self):
        class Looks(nn.Module):
            def forward(self, x, label):
                return x * 2 if float(label[0]) > 0 else x

        class Uncopied(nn.Module):
            def __init__(self):
                super().__init__()
                self.lines = (line for line in "ab")

            def forward(self, x, label):
                return x

        for network in (Looks(), Uncopied()):
            assert kept_bytes(network, 4, parts(1)) is None
            assert passing_bytes(network, 4, parts(1)) is None

    def test_weights_come_with_gradients_moments_and_averages(self):
        module = nn.Sequential(nn.Linear(10, 5, bias=False), nn.Linear(5, 5, bias=False), nn.BatchNorm1d(5))
        module[1].requires_grad_(requires_grad=False)
        learnt, fixed = 4 * (50 + 10), 4 * (25 + 10) + 8
        assert weight_bytes(module, averaged=False) == 4 * learnt + fixed
        assert weight_bytes(module, averaged=True) == 5 * learnt + 2 * fixed


class TestStep:
    def test_grows_with_the_batch(self):
        sizes = [EXAMPLE.of(pairs) - EXAMPLE.weights for pairs in (1, 2, 5)]
        assert sizes == [n * (4 * EXAMPLE.image + EXAMPLE.fields) for n in (1, 2, 5)]

    def test_does_not_grow_with_the_patches_beyond_a_chunk(self):
        chunked = replace(EXAMPLE, at_once=3)
        assert chunked.of(1) == EXAMPLE.of(1) - EXAMPLE.image
        assert chunked.of(6) - chunked.of(5) == EXAMPLE.fields

    def test_means_of_whole_fields_may_be_more(self):
        mean = replace(EXAMPLE, at_once=1, mean=100 * 2**20)
        assert mean.of(5) == EXAMPLE.weights + 5 * (EXAMPLE.fields + mean.mean)

    def test_is_told_in_words(self):
        assert EXAMPLE.describe(4) == (
            "a step keeps about 1.3 GiB: 80.0 MiB for each of 16 patches of 32 x 32 points, 4.0 MiB for inputs, "
            "targets and noise, and 10.0 MiB for weights and their averages"
        )
        other = replace(EXAMPLE, at_once=2, means=2**30, averaged=False)
        assert other.describe(4) == (
            "a step keeps about 1.2 GiB: 80.0 MiB for each of 2 patches of 32 x 32 points at once, 4.0 MiB for inputs, "
            "targets and noise, 1.0 GiB for the regression's means, and 10.0 MiB for weights"
        )
        slow = replace(EXAMPLE, at_once=1, mean=100 * 2**20)
        assert slow.describe(4).startswith(
            "a step keeps about 0.4 GiB: 100.0 MiB while the regression computes each of 4 means, 4.0 MiB for inputs"
        )
        assert "4 fields of 32 x 32" in replace(EXAMPLE, images=1, patched=False).describe(4)

    def test_the_largest_part_is_taken(self):
        assert EXAMPLE.largest_batch(12, EXAMPLE.of(5)) == 4
        assert EXAMPLE.largest_batch(12, EXAMPLE.of(12)) == 12
        assert EXAMPLE.largest_batch(7, EXAMPLE.of(6)) == 1
        assert EXAMPLE.largest_batch(12, EXAMPLE.of(1) - 1) is None


def test_units():
    assert in_words(3 * 2**30) == "3.0 GiB"
    assert in_words(2**20 // 2) == "0.5 MiB"


def test_memory_of_a_machine_is_shared_by_its_processes():
    cpu = torch.device("cpu")
    assert 2**20 < free_bytes(cpu) < 2**50
    assert free_bytes(cpu, 4) == pytest.approx(free_bytes(cpu) / 4, rel=0.2)


def attached(module, data, **trainer):
    """A module with networks for the data, and what it asks a trainer."""
    module.contract = data.contract
    module.build(data.contract)
    settings = {
        "datamodule": data,
        "world_size": 1,
        "num_devices": 1,
        "accumulate_grad_batches": 1,
        "num_training_batches": 11,
        "is_global_zero": True,
        "estimated_stepping_batches": 22,
        "callbacks": [],
        "precision_plugin": SimpleNamespace(forward_context=contextlib.nullcontext),
        "strategy": SimpleNamespace(root_device=torch.device("cpu"), reduce=lambda values, reduce_op: values),
    }
    module._trainer = SimpleNamespace(**(settings | trainer))
    return module


def make_diffusion(data, regression=song, **settings):
    module = ResidualDiffusionModule(network=song, **settings)
    if regression is not None:
        module.mean_model = attached(RegressionModule(regression), data).eval()
    return attached(module, data)


class TestModules:
    def test_know_what_their_steps_need(self, data):
        module = attached(RegressionModule(song), data)
        network, channels = module.learner
        shape = data.contract.shape
        found = module.step_memory(data)
        whole = Patches.whole(torch.zeros(2, 1, *shape))
        torch.manual_seed(0)
        own = {StorageWeakRef(t.untyped_storage()) for t in (*network.parameters(), *network.buffers())}
        kept = {}

        def take_note(tensor):
            kept[StorageWeakRef(tensor.untyped_storage())] = tensor.untyped_storage()
            return tensor.detach()

        batch = next(iter(data.some_pairs("train", 2, at_once=2)))
        with saved_tensors_hooks(take_note, lambda tensor: tensor):
            module.built.of_patches(module.built.conditioner(batch), batch, whole)
        expected = sum(storage.nbytes() for ref, storage in kept.items() if ref not in own)
        assert 2 * found.image == pytest.approx(expected, rel=0.02)
        assert (found.images, found.shape, found.patched, found.averaged) == (1, shape, False, False)
        assert channels == len(data.contract.outputs) + data.contract.n_conditions

    def test_count_patches_and_averages(self, data):
        module = make_diffusion(data, patches=RandomPatches(16, count=3), patch_chunk=2, overview=True)
        plain = module.step_memory(data)
        assert (plain.images, plain.shape, plain.patched, plain.at_once) == (3, (16, 16), True, 2)
        assert plain.image == pytest.approx(make_diffusion(data).step_memory(data).image / 4, rel=0.1)
        module._trainer.callbacks = [SampleAverage()]
        averaged = module.step_memory(data)
        assert averaged.averaged
        assert averaged.weights > plain.weights

    def test_count_the_regressions_means(self, data):
        """They are kept for the training, or made anew for every step."""
        module = make_diffusion(data)
        kept = module.step_memory(data)
        assert kept.means == data.n_pairs("train") * len(data.contract.outputs) * 32 * 32 * 4
        assert 0 < kept.mean < kept.image
        module.mean_memory = 0.0
        made = module.step_memory(data)
        assert made.means == 0
        assert made.mean == kept.mean
        none = make_diffusion(data, regression=None).step_memory(data)
        assert (none.means, none.mean) == (0, 0)

    def test_say_so_when_a_fit_begins(self, data, capsys):
        module = attached(RegressionModule(song), data)
        module.on_train_start()
        text = capsys.readouterr().out
        assert "88 samples in 22 steps of 4: 2.0 times the 44 training pairs, 2 epochs; a step keeps about" in text
        assert "for each of 4 fields of 32 x 32 points, 0.4 MiB for inputs, targets and noise, and" in text

    def test_say_nothing_of_networks_that_look_at_values(self, data, capsys):
        class Looks(SongUNet):
            def forward(self, x, noise_label, lead_embedding=None):
                return super().forward(x * float(x.mean() > -1), noise_label, lead_embedding)

        module = attached(RegressionModule(partial(Looks, **SMALL)), data)
        module.on_train_start()
        assert capsys.readouterr().out.rstrip().endswith("training pairs, 2 epochs")
        data.batch_size, data.total_batch = None, 12
        with pytest.raises(InputError, match=r"data.batch_size is null, but model.network cannot be run without val"):
            module.setup("fit")


class TestAutomaticBatch:
    def chosen(self, data, monkeypatch, *, room=5, module=None, **trainer):
        """The batch for a free memory that has room for so many pairs."""
        module = module or attached(RegressionModule(song), data, **trainer)
        data.batch_size = None
        free = module.step_memory(data).of(room) * 1.01 / SHARE
        monkeypatch.setattr(module_base, "free_bytes", lambda device, processes: free)
        module.setup("fit")
        assert module.total_batch == data.total_batch
        assert module.trainer.accumulate_grad_batches * data.pairs_at_once * module.trainer.world_size == (
            data.total_batch
        )
        return data.pairs_at_once

    @pytest.mark.parametrize(
        ("total", "world_size", "expected"), [(12, 1, 4), (12, 2, 3), (10, 1, 5), (7, 1, 1), (4, 1, 4), (40, 2, 5)]
    )
    def test_is_the_largest_that_fits(self, data, monkeypatch, capsys, total, world_size, expected):
        data.total_batch = total
        assert self.chosen(data, monkeypatch, world_size=world_size) == expected
        text = capsys.readouterr().out
        assert f"data.batch_size {expected}: a step keeps about" in text
        assert "a step may take 80% of the free" in text

    def test_the_process_with_the_least_memory_decides(self, data, monkeypatch):
        data.total_batch = 12
        calls = []

        def reduce(values, reduce_op):
            calls.append(reduce_op)
            return values / 2

        strategy = SimpleNamespace(root_device=torch.device("cpu"), reduce=reduce)
        assert self.chosen(data, monkeypatch, room=7, strategy=strategy) == 3
        assert calls == ["min"]

    def test_a_chunk_leaves_more_room(self, data, monkeypatch):
        data.total_batch = 12
        settings = {"regression": None, "patches": RandomPatches(16, count=3)}
        module, whole = make_diffusion(data, patch_chunk=3, **settings), make_diffusion(data, **settings)
        free = whole.step_memory(data).of(1) * 1.5 / SHARE
        monkeypatch.setattr(module_base, "free_bytes", lambda device, processes: free)
        found = []
        for own in (whole, module):
            data.batch_size = None
            own.setup("fit")
            found.append(data.pairs_at_once)
        assert found == [1, 12]

    def test_is_kept_by_a_fit_that_goes_on(self, data, monkeypatch):
        data.total_batch = 12
        first = attached(RegressionModule(song), data)
        assert self.chosen(data, monkeypatch, module=first) == 4
        checkpoint = {"state_dict": first.state_dict()}
        first.on_save_checkpoint(checkpoint)
        second = attached(RegressionModule(song), data, state=SimpleNamespace(fn=None))
        second.on_load_checkpoint(checkpoint)
        assert self.chosen(data, monkeypatch, module=second, room=12) == 4

    def test_no_memory_for_one_pair_is_refused(self, data, monkeypatch):
        data.batch_size, data.total_batch = None, 12
        module = attached(RegressionModule(song), data)
        monkeypatch.setattr(module_base, "free_bytes", lambda device, processes: 2**20)
        with pytest.raises(InputError) as error:
            module.setup("fit")
        need = in_words(module.step_memory(data).of(1))
        assert f"there is no memory for one pair: a step keeps about {need}: " in str(error.value)
        assert "; a step may take 80% of the free 1.0 MiB. Learn from" in str(error.value)

    def test_processes_must_divide_the_total(self, data):
        data.batch_size, data.total_batch = None, 13
        module = attached(RegressionModule(song), data, world_size=4)
        with pytest.raises(InputError, match=r"data.total_batch 13 is no multiple of 4 processes; take 12 or 16"):
            module.setup("fit")

    def test_needs_a_total(self):
        with pytest.raises(InputError, match=r"data.batch_size is null; expected a number, or data.total_batch"):
            make_tiny(batch_size=None)

    def test_before_a_fit_pairs_are_read_as_for_a_validation(self, tiny_data):
        data = make_tiny(batch_size=None, total_batch=12, eval_batch_size=6)
        data.prepare_data()
        data.setup("fit")
        assert [len(batch["index"]) for batch in data.some_pairs("train", 14)] == [6, 6, 2]
        assert all(len(batch["index"]) == 6 for batch in data.train_dataloader())


class TestControlGroups:
    """What a container or a job of SLURM may use, which is less than what the machine has."""

    def rooms(self, tmp_path, line, **files):
        (tmp_path / "cgroup").write_text(line + "\n")
        for name, value in files.items():
            folder, _, file = name.replace("__", "/").rpartition("/")
            (tmp_path / "fs" / folder).mkdir(parents=True, exist_ok=True)
            (tmp_path / "fs" / folder / file.replace("_dot_", ".")).write_text(f"{value}\n")
        return memory._rooms(tmp_path / "cgroup", tmp_path / "fs")

    def test_of_a_group_and_those_above_it(self, tmp_path):
        found = self.rooms(
            tmp_path, "0::/job/step", job__step__memory_dot_max="max", job__step__memory_dot_current=5,
            job__memory_dot_max=900, job__memory_dot_current=400,
        )  # fmt: skip
        assert found == [500]

    def test_files_that_were_read_make_room(self, tmp_path):
        files = {"memory_dot_max": 1000, "memory_dot_current": 950, "memory_dot_stat": "anon 150\ninactive_file 700"}
        assert self.rooms(tmp_path, "0::/", **files) == [750]

    def test_of_the_first_version(self, tmp_path):
        files = {"memory__job__memory_dot_limit_in_bytes": 70, "memory__job__memory_dot_usage_in_bytes": 30}
        assert self.rooms(tmp_path, "4:memory:/job", **files) == [40]

    def test_a_container_sees_its_own_group_at_the_top(self, tmp_path):
        files = {"memory_dot_max": 100, "memory_dot_current": 130}
        assert self.rooms(tmp_path, "0::/not/seen/here", **files) == [0]

    def test_without_groups_there_is_no_limit(self, tmp_path):
        assert memory._rooms(tmp_path / "none", tmp_path) == []

    def test_bound_what_is_free(self, monkeypatch):
        monkeypatch.setattr(memory, "_rooms", lambda: [8000, 600])
        assert free_bytes(torch.device("cpu"), processes=2) == 300
