"""The training modules by themselves: losses and gradients of batches, ensembles, and what is refused."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ai4sim.errors import InputError
from downscaling.corrdiff import models
from downscaling.corrdiff.batches import MEAN, Plan, PlannedRows
from downscaling.corrdiff.diffusion import Edm, HeunSampler, RandomPatches, Schedule, Tiles
from downscaling.corrdiff.models import ResidualDiffusionModule
from downscaling.corrdiff.module_base import FAILURES
from downscaling.corrdiff.networks import PositionedUNet, SongUNet
from downscaling.corrdiff.regression_module import RegressionModule

SMALL = {"model_channels": 8, "channel_mult": (1, 2), "num_blocks": 1, "attn_resolutions": (), "dropout": 0.0}
song = partial(SongUNet, **SMALL)
SAMPLER = HeunSampler(Schedule(3, 0.05, 10.0))
CLASSES = ("10u", "10v", "2t")


def placed(inputs, outputs, **settings):
    """A network that knows the places of the tests' fields."""
    return PositionedUNet(inputs, outputs, **({"domain": (32, 32), "unet": song} | settings))


def enliven(module):
    """Let networks say something: their last layers begin at almost 0."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in module.named_parameters():
        if name.endswith("head.weight"):
            parameter.data = 0.05 * torch.randn(parameter.shape, generator=generator)
    return module


def ready(module, contract):
    """A module with networks and without a trainer."""
    torch.manual_seed(0)
    module.contract = contract
    module.build(contract)
    module.log = lambda *args, **kwargs: None
    return enliven(module)


def make_diffusion(contract, regression=song, **settings):
    module = ResidualDiffusionModule(network=settings.pop("network", song), sampler=SAMPLER, **settings)
    if regression is not None:
        module.mean_model = ready(RegressionModule(regression), contract).eval()
    ready(module, contract)
    module.scale.factor.copy_(torch.linspace(0.5, 2, len(contract.outputs)).reshape(-1, 1, 1))
    return module


@pytest.fixture
def contract(data):
    return data.contract


@pytest.fixture
def batch(data):
    data.batch_size = 8
    return next(iter(data.some_pairs("train", 8)))


def part(batch, rows):
    return {name: values[rows] for name, values in batch.items()}


def gradients(module):
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def assert_same(one, other, tolerance=1e-6):
    """Compare gradients, relative to all of them."""
    assert one.keys() == other.keys()
    size = torch.stack([values.norm() for values in one.values()]).norm()
    difference = torch.stack([(other[name] - values).norm() for name, values in one.items()]).norm()
    assert 0 < float(size) < torch.inf
    assert float(difference / size) < tolerance


class TestGradients:
    @pytest.mark.parametrize("rounds", [2, 4])
    def test_of_a_batch_are_those_of_its_parts(self, contract, batch, rounds):
        module = ready(RegressionModule(song), contract).double()
        batch = {name: values.double() if values.is_floating_point() else values for name, values in batch.items()}
        module.training_step(batch, 0).backward()
        whole = gradients(module)
        module.zero_grad()
        for rows in np.split(np.arange(8), rounds):
            (module.training_step(part(batch, rows), 0) / rounds).backward()
        assert_same(whole, gradients(module))

    def test_of_a_diffusions_batch_are_those_of_its_parts(self, contract, batch, monkeypatch):
        module = make_diffusion(contract)
        sigma = dict(zip(batch["case"].tolist(), torch.linspace(0.1, 3, 8).tolist(), strict=True))
        noise = {case: torch.randn(4, 32, 32, generator=torch.Generator().manual_seed(case)) for case in sigma}
        seen = []
        monkeypatch.setattr(
            type(module.noise_levels),
            "sample",
            lambda self, n, **_: torch.tensor([sigma[case] for case in seen[-1]["case"].tolist()]),
        )
        monkeypatch.setattr(
            Edm, "noise", lambda self, s, shape: torch.stack([noise[c] for c in seen[-1]["case"].tolist()])
        )
        results = []
        for rounds in (1, 2):
            module.zero_grad()
            for rows in np.split(np.arange(8), rounds):
                seen.append(part(batch, rows))
                (module.training_step(seen[-1], 0) / rounds).backward()
            results.append(gradients(module))
        assert_same(*results, tolerance=3e-6)  # denoisers are of single precision

    @pytest.mark.parametrize("uncertainty", [False, True])
    def test_of_patches_do_not_depend_on_how_many_are_in_memory(self, contract, batch, uncertainty):
        network = partial(placed, position="learnable", position_channels=3)
        module = make_diffusion(
            contract, network=network, patches=RandomPatches(16, count=3), overview=True, uncertainty=uncertainty
        )
        two = part(batch, slice(2))
        two["output"] = two["output"].clone()
        two["output"][0, 1, :9] = torch.nan  # patches know more or less of it
        seen, means = [], []
        module.denoiser.network.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
        module.mean_model.built.regressor.register_forward_pre_hook(lambda _, args: means.append(len(args[0])))
        results, losses = [], []
        for chunk in (None, 6, 4, 1):
            module.patch_chunk = chunk
            module.zero_grad()
            seen.clear()
            means.clear()
            torch.manual_seed(5)
            loss = module.training_step(two, 0)
            loss.backward()
            losses.append(float(loss.detach()))
            results.append(gradients(module))
            assert max(seen) == (chunk or 6)
            assert means == [2]  # once for all patches of an image
        assert losses == pytest.approx([losses[0]] * 4, rel=1e-5)
        for other in results[1:]:
            assert_same(results[0], other)
        assert all(parameter.grad is None for parameter in module.mean_model.parameters())

    def test_at_first_the_loss_of_a_scaled_residual_is_1(self, data, contract):
        """Acceptance 4: where the residual has the standard deviation sigma_data."""
        module = ready(ResidualDiffusionModule(network=song), contract)
        module.denoiser.network.head.weight.data *= 1e-5
        module.scale.fit(module.residuals(data, 44))
        data.batch_size = 44
        batch = next(iter(data.some_pairs("train", 44)))
        torch.manual_seed(0)
        with torch.no_grad():
            losses = [float(module.training_step(batch, 0)) for _ in range(10)]
        assert np.mean(losses) == pytest.approx(1, abs=0.1)

    def test_patches_of_a_regression_are_of_the_whole_fields(self, contract, batch):
        module = ready(RegressionModule(song, patches=RandomPatches(32)), contract)
        whole = ready(RegressionModule(song), contract)
        with torch.no_grad():
            assert float(module.training_step(batch, 0)) == pytest.approx(float(whole.training_step(batch, 0)))


class TestNonFiniteGradients:
    def attached(self, contract, batch):
        module = make_diffusion(contract)
        module._trainer = SimpleNamespace(global_step=7)
        module._last_batch = batch
        return module

    def test_a_step_is_left_out(self, contract, batch, caplog):
        module = self.attached(contract, batch)
        optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], lr=0.1)
        module.training_step(batch, 0).backward()
        module.on_before_optimizer_step(optimizer)
        optimizer.step()
        before = {name: values.clone() for name, values in module.state_dict().items()}
        module.training_step(batch, 0).backward()
        module.denoiser.network.head.bias.grad[0] = torch.inf
        module.on_before_optimizer_step(optimizer)
        optimizer.step()
        assert "step 7 has gradients that are not finite" in caplog.text
        for name, values in module.state_dict().items():
            assert torch.equal(values, before[name]), name

    def test_ten_in_a_row_end_the_training(self, contract, batch):
        module = self.attached(contract, batch)
        optimizer = torch.optim.Adam(module.parameters())

        def step(value):
            loss = module.training_step(part(batch, slice(2)), 0)
            (loss * value).backward()
            module.on_before_optimizer_step(optimizer)
            module.zero_grad()

        for _ in range(FAILURES - 1):
            step(torch.nan)
        step(1.0)  # counted anew
        for _ in range(FAILURES - 1):
            step(torch.nan)
        with pytest.raises(InputError) as error:
            step(torch.nan)
        cases = ", ".join(map(str, batch["case"].tolist()))
        levels = ", ".join(f"{s:.3g}" for s in module._sigma.tolist())
        assert f"10 steps in a row had gradients that are not finite; the last was of the pairs {cases}" in str(
            error.value
        )
        assert f"with sigma {levels}" in str(error.value)


def generated(module, data, members, batch_size, pairs=3):
    """Fields by pair and member, for batches of some size."""
    plan = Plan.of(data._rows["test"][:pairs], members)
    rows = PlannedRows(data._stored(), plan)
    with torch.inference_mode():
        fields = [
            module.rows(rows.read(np.arange(start, min(start + batch_size, len(plan)))))
            for start in range(0, len(plan), batch_size)
        ]
    return {
        (int(pair), int(member)): field
        for pair, member, field in zip(plan.pair, plan.member, torch.cat(fields), strict=True)
    }


class TestEnsembles:
    @pytest.fixture
    def module(self, contract):
        return make_diffusion(contract).eval()

    def test_a_member_is_the_same_whoever_is_made_with_it(self, module, data):
        expected = generated(module, data, 5, 18)
        scale = module.conditioner.outputs.std.reshape(-1, 1, 1) if hasattr(module.conditioner.outputs, "std") else 1.0
        for members, batch_size in ((5, 1), (5, 2), (5, 5), (7, 5)):
            found = generated(module, data, members, batch_size)
            assert len(found) == 3 * (members + 1)
            for key, field in expected.items():
                error = ((found[key] - field) / scale).abs().max()
                assert float(error) <= 1e-5 * float((field / scale).abs().max()), key

    def test_members_of_different_cases_have_nothing_in_common(self, module, data):
        found = generated(module, data, 2, 9)
        means = {pair: field for (pair, member), field in found.items() if member == MEAN}
        residuals = [
            torch.nn.functional.normalize(
                (field - means[pair])[:3].flatten(1) - (field - means[pair])[:3].mean((1, 2))[:, None]
            )
            for (pair, member), field in found.items()
            if member != MEAN
        ]
        for i, one in enumerate(residuals):
            for other in residuals[:i]:
                assert float((one * other).sum(1).mean().abs()) < 0.05

    def test_noise_may_be_shared(self, module, data):
        module.shared_noise_in_time = True
        module.denoiser.network.head.weight.data.zero_()
        found = generated(module, data, 1, 6)
        first, second = sorted({pair for pair, _ in found})[:2]
        residuals = [(found[pair, 0] - found[pair, MEAN])[:3] for pair in (first, second)]  # all but the squares
        torch.testing.assert_close(*residuals, rtol=1e-3, atol=1e-3)
        assert float(residuals[0].abs().max()) > 0.1

    def test_without_members_there_are_means_alone(self, module, data):
        found = generated(module, data, 0, 2)
        assert {member for _, member in found} == {MEAN}
        batch = data._stored().read(data._rows["test"][:3])
        with torch.no_grad():
            expected = module.mean_model.rows(batch | {"row_pair": torch.arange(3)})
        torch.testing.assert_close(torch.stack(list(found.values())), expected, rtol=1e-5, atol=1e-5)

    def test_one_tile_over_all_is_no_tiles(self, contract, data):
        one, other = (
            make_diffusion(contract, overview=True, tiles=tiles, network=placed).eval() for tiles in (None, Tiles(32))
        )
        whole, tiled = (generated(module, data, 2, 4) for module in (one, other))
        for key, field in whole.items():
            torch.testing.assert_close(tiled[key], field, rtol=1e-5, atol=1e-5)

    def test_tiles_need_no_more_memory_than_their_batch(self, contract, data):
        module = make_diffusion(contract, network=placed, tiles=Tiles(16, batch_size=3)).eval()
        seen = []
        module.denoiser.network.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape))
        found = generated(module, data, 4, 20)
        assert {tuple(shape[2:]) for shape in seen} == {(16, 16)}
        assert max(shape[0] for shape in seen) == 3
        assert all(bool(torch.isfinite(field).all()) for field in found.values())

    def test_students_noise_makes_heavier_tails(self, contract, data):
        spreads = {}
        for nu in (None, 3.0):
            module = make_diffusion(contract, edm=Edm(nu=nu)).eval()
            module.denoiser.network.head.weight.data.zero_()
            found = generated(module, data, 40, 60, pairs=1)
            (pair,) = {pair for pair, _ in found}
            spreads[nu] = np.array([float((found[pair, k] - found[pair, MEAN])[0].std()) for k in range(40)])
        assert spreads[3.0].max() / spreads[3.0].min() > 3 > 1.5 > spreads[None].max() / spreads[None].min()

    def test_a_member_that_is_not_finite_is_named(self, module, data):
        module.denoiser.network.head.bias.data[0] = torch.inf
        pair = int(data._stored().read(data._rows["test"][:1])["case"][0])
        with pytest.raises(InputError, match=f"member 0 of pair {pair} is not finite"):
            generated(module, data, 2, 6)

    def test_without_a_regression_fields_are_learnt_themselves(self, contract, data):
        module = make_diffusion(contract, regression=None).eval()
        assert module.label == "diffusion"
        assert not module.gives_mean
        assert module.n_inputs == len(contract.outputs) + contract.n_conditions
        found = generated(module, data, 2, 6)
        assert all(bool(torch.isfinite(field).all()) for field in found.values())

    def test_raw_pairs_without_truth_are_enough(self, module, data):
        raw = data._raw_pairs()
        rows = PlannedRows(raw, Plan.of(np.array([3, 60]), 2))
        read = rows.read(np.arange(6))
        assert "output" not in read
        with torch.inference_mode():
            fields = module.rows(read)
        assert fields.shape == (6, 4, 32, 32)
        assert bool(torch.isfinite(fields).all())


class TestValidation:
    def validated(self, module, data, batch_size):
        logged = {}
        module.log = lambda name, value, **_: logged.update({name: float(value)})
        module._trainer = SimpleNamespace(strategy=SimpleNamespace(reduce=lambda sums, reduce_op: sums))
        module.eval()
        module.on_validation_epoch_start()
        rows = data._rows["validation"]
        with torch.inference_mode():
            for start in range(0, len(rows), batch_size):
                module.validation_step(data._stored().read(rows[start : start + batch_size]), 0)
        module.on_validation_epoch_end()
        return logged

    def test_noise_is_that_of_the_pairs(self, contract, data):
        module = make_diffusion(contract)
        one = self.validated(module, data, 1)
        bins = set(one) - {"val_loss"}
        assert bins
        assert bins <= {f"val_loss_noise_{i + 1}" for i in range(8)}
        assert one["val_loss"] > 0
        assert self.validated(module, data, 4) == pytest.approx(one, rel=1e-4)

    def test_is_done_in_the_tiles_that_members_are_made_in(self, contract, data):
        whole, covered, tiled = (
            self.validated(make_diffusion(contract, network=placed, overview=True, tiles=tiles), data, 3)
            for tiles in (None, Tiles(32), Tiles(16))
        )
        assert covered == pytest.approx(whole, rel=1e-4)
        assert tiled["val_loss"] != pytest.approx(whole["val_loss"], rel=1e-4)

    def test_of_a_regression_is_the_mean_squared_error(self, contract, data):
        module = ready(RegressionModule(song), contract)
        found = self.validated(module, data, 3)["val_loss"]
        batch = data._stored().read(data._rows["validation"])
        with torch.no_grad():
            errors = module.built(batch) - module.built.conditioner.outputs(batch["output"])
        assert found == pytest.approx(float(errors.square().mean()), rel=1e-5)


class TestProbabilities:
    @pytest.fixture
    def classes(self, contract):
        """The contract of data of which three outputs are the probabilities of classes."""
        moments = replace(
            contract.output_moments,
            mean=(0.0, 0.0, 0.0, contract.output_moments.mean[3]),
            std=(1.0, 1.0, 1.0, contract.output_moments.std[3]),
        )
        return replace(contract, probabilities=CLASSES, output_moments=moments)

    network = staticmethod(partial(placed, probability_channels=[0, 1, 2]))

    def shared(self, batch):
        """The batch with probabilities."""
        fields = batch["output"].clone()
        fields[:, :3] = fields[:, :3].div(10).softmax(1)
        return batch | {"output": fields}

    def test_sum_to_one(self, classes, batch, data):
        module = make_diffusion(classes, regression=self.network).eval()
        for field in generated(module, data, 2, 5).values():
            assert float(field[:3].min()) >= 0
            torch.testing.assert_close(field[:3].sum(0), torch.ones(32, 32))

    def test_are_learnt_by_cross_entropy(self, classes, batch):
        own = self.shared(batch)
        module = ready(RegressionModule(self.network, weights={"classes": 2.0}), classes)
        with torch.no_grad():
            loss, outputs, target = module.training_step(own, 0), module.built(own), own["output"]
        entropy = -(target[:, :3] * outputs[:, :3].log_softmax(1)).sum(1)
        squares = (outputs[:, 3] - module.built.conditioner.outputs(target)[:, 3]).square()
        assert float(loss) == pytest.approx(float((2 * entropy.mean() + squares.mean()) / 2), rel=1e-5)

    def test_diffusion_has_the_residual_of_probabilities(self, classes, batch):
        own = self.shared(batch)
        module = make_diffusion(classes, regression=self.network)
        module.train()
        mean = module._mean(own)
        torch.testing.assert_close(mean[:, :3].sum(1), torch.ones(8, 32, 32))
        assert torch.isfinite(module.training_step(own, 0))

    @pytest.mark.parametrize("network", [song, placed, partial(placed, probability_channels=[0, 1])])
    def test_need_a_network_that_gives_them(self, classes, network):
        with pytest.raises(
            InputError, match=r"outputs 10u, 10v, 2t are probabilities: .* probability_channels \[0, 1, 2\]"
        ):
            ready(RegressionModule(network), classes)

    def test_are_not_learnt_where_there_are_none(self, contract, classes):
        with pytest.raises(InputError, match=r"probability_channels \[0, 1, 2\], but none of what it learns"):
            ready(RegressionModule(self.network), contract)
        with pytest.raises(InputError, match="what the diffusion learns never are"):
            make_diffusion(classes, regression=self.network, network=self.network)

    def test_weights_of_unknown_terms_are_refused(self, classes):
        with pytest.raises(InputError, match=r"model.weights names '10u'; there are tp, classes"):
            ready(RegressionModule(self.network, weights={"10u": 2.0}), classes)


class TestNetworksThatDoNotFit:
    def test_domain(self, contract):
        with pytest.raises(InputError, match=r"the domain 48 x 64, the data have fields of 32 x 32"):
            ready(RegressionModule(partial(placed, domain=(48, 64))), contract)

    def test_a_network_that_knows_no_places_may_be_of_any_domain(self, contract):
        module = make_diffusion(contract)
        module.require_shape((64, 48))
        module = make_diffusion(contract, network=placed)
        with pytest.raises(InputError, match=r"the domain 32 x 32, the data have fields of 64 x 48"):
            module.require_shape((64, 48))

    def test_lead_times(self, contract):
        network = partial(placed, lead_steps=9, lead_channels=2)
        with pytest.raises(InputError, match=r"lead_steps 9, the data have no lead times"):
            ready(RegressionModule(network), contract)
        with pytest.raises(InputError, match=r"lead_steps 9, the data have 3 lead times"):
            ready(RegressionModule(network), replace(contract, lead_labels=(0, 3, 6)))

    def test_networks_need_not_know_lead_times(self, contract, batch):
        module = make_diffusion(replace(contract, lead_labels=(0, 3, 6)))
        assert torch.isfinite(module.training_step(batch | {"lead": torch.zeros(8, dtype=torch.int64)}, 0))

    @pytest.mark.parametrize("name", ["patch_chunk", "scaling_pairs"])
    def test_numbers_below_1(self, name):
        with pytest.raises(InputError, match=f"model.{name} is 0"):
            ResidualDiffusionModule(**{name: 0})


class TestForce:
    """A checkpoint for other data, and a diffusion for another regression."""

    @pytest.fixture
    def other(self, contract):
        """The contract of data with other statistics."""
        moments = contract.output_moments
        doubled = replace(moments, std=tuple(2 * value for value in moments.std))
        inputs = replace(contract.input_moments, mean=tuple(value + 1 for value in contract.input_moments.mean))
        return replace(contract, output_moments=doubled, input_moments=inputs)

    def attach(self, module, data, contract, monkeypatch):
        """Data of a contract, as a trainer has them."""
        monkeypatch.setattr(type(data), "contract", property(lambda self: contract))
        module._trainer = SimpleNamespace(datamodule=data, state=SimpleNamespace(fn=None))
        return module

    def stored(self, module):
        checkpoint = {"state_dict": module.state_dict()}
        module.on_save_checkpoint(checkpoint)
        return checkpoint

    def load(self, module, checkpoint):
        module.on_load_checkpoint(checkpoint)
        module.load_state_dict(checkpoint["state_dict"])
        module.eval()

    @pytest.mark.parametrize("order", ["checkpoint first", "data first"])
    def test_statistics_are_those_of_the_checkpoint(self, data, contract, other, batch, monkeypatch, caplog, order):
        trained = ready(RegressionModule(song), contract).eval()
        rows = batch | {"row_pair": torch.arange(8)}
        with torch.no_grad():
            expected = trained.rows(rows)
        checkpoint = self.stored(trained)
        module = self.attach(RegressionModule(song, force=True), data, other, monkeypatch)
        if order == "data first":
            module.setup("test")
        self.load(module, checkpoint)
        module.setup("test")
        module.setup("test")
        with torch.no_grad():
            assert torch.equal(module.rows(rows), expected)
        assert module.known == contract
        warnings = [record.message for record in caplog.records if "model.force" in record.message]
        assert len(warnings) == 2  # a mean and a standard deviation
        assert "input mean of '10u': the checkpoint has" in warnings[0]

    @pytest.mark.parametrize("order", ["checkpoint first", "data first"])
    def test_without_it_statistics_are_refused(self, data, contract, other, monkeypatch, order):
        checkpoint = self.stored(ready(RegressionModule(song), contract))
        module = self.attach(RegressionModule(song), data, other, monkeypatch)
        steps = [partial(module.on_load_checkpoint, checkpoint), partial(module.setup, "test")]
        first, second = steps if order == "checkpoint first" else steps[::-1]
        first()
        with pytest.raises(InputError, match=r"input mean of '10u': .* \(model.force true overrides this\)$"):
            second()

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"factor": 4}, r"factor: the checkpoint has 8, the data 4$"),
            ({"lead_labels": (0, 3)}, r"lead labels: the checkpoint has \(\), the data \(0, 3\)$"),
            ({"probabilities": CLASSES}, r"probabilities: the checkpoint has \(\), .*\)$"),
        ],
    )
    @pytest.mark.parametrize("force", [False, True])
    def test_other_kinds_of_data_are_refused_all_the_same(
        self, data, other, contract, monkeypatch, force, changes, message
    ):
        checkpoint = self.stored(ready(RegressionModule(song), contract))
        module = self.attach(RegressionModule(song, force=force), data, replace(other, **changes), monkeypatch)
        module.on_load_checkpoint(checkpoint)
        with pytest.raises(InputError, match=message) as error:
            module.setup("test")
        assert "model.force" not in str(error.value)

    @pytest.mark.parametrize("kind", ["inputs", "outputs", "static"])
    def test_other_channels_are_refused_all_the_same(self, data, contract, monkeypatch, kind):
        checkpoint = self.stored(ready(RegressionModule(song), contract))
        changed = replace(contract, **{kind: getattr(contract, kind)[::-1]})
        module = self.attach(RegressionModule(song, force=True), data, changed, monkeypatch)
        module.on_load_checkpoint(checkpoint)
        message = f"{kind.removesuffix('s')} channels differ at number 1: the checkpoint has"
        with pytest.raises(InputError, match=message) as error:
            module.setup("test")
        assert "model.force" not in str(error.value)

    def test_fields_of_another_size_are_taken(self, data, contract, monkeypatch):
        larger = replace(contract, shape=(64, 48), spacing_km=9.0)
        for network, fits in ((song, True), (placed, False)):
            checkpoint = self.stored(ready(RegressionModule(network), contract))
            module = self.attach(RegressionModule(network, force=True), data, larger, monkeypatch)
            module.on_load_checkpoint(checkpoint)
            if fits:
                module.setup("test")
                assert module.known == larger
                module.on_load_checkpoint(checkpoint)  # as the trainer does after the setup
                assert module.known == larger
            else:
                with pytest.raises(InputError, match=r"the domain 32 x 32, the data have fields of 64 x 48"):
                    module.setup("test")

    def test_every_difference_is_told(self, data, contract, other, monkeypatch, caplog):
        checkpoint = self.stored(ready(RegressionModule(song), contract))
        changed = replace(other, spacing_km=1.0, transforms=("none",) * len(contract.transforms))
        module = self.attach(RegressionModule(song, force=True), data, changed, monkeypatch)
        module.on_load_checkpoint(checkpoint)
        module.setup("test")
        for told in (
            "transform of 'tp': the checkpoint has sqrt",
            "output std of",
            "the data 1.0: passed over",
        ):
            assert caplog.text.count(told) == 1, told
        assert caplog.text.count("passed over, as model.force is true") >= 3

    def other_regression(self, contract):
        model = ready(RegressionModule(song), contract).eval()
        model.built.regressor.network.head.bias.data += 0.5
        return model

    @pytest.mark.parametrize("averaged", [False, True])
    def test_another_regression_gives_the_mean(self, data, contract, averaged, caplog):
        checkpoint = self.stored(make_diffusion(contract))
        if averaged:
            checkpoint["current_model_state"] = {n: v.clone() for n, v in checkpoint["state_dict"].items()}
        module = ResidualDiffusionModule(network=song, sampler=SAMPLER, force=True)
        module.mean_model = self.other_regression(contract)
        own = {name: values.clone() for name, values in module.mean_model.state_dict().items()}
        self.load(module, checkpoint)
        if averaged:
            module.load_state_dict(checkpoint["current_model_state"])
        assert "trained with another regression" in caplog.text
        for name, values in module.mean_model.state_dict().items():
            assert torch.equal(values, own[name]), name
        found = generated(module, data, 0, 9)
        batch = data._stored().read(data._rows["test"][:3])
        with torch.no_grad():
            expected = module.mean_model.rows(batch | {"row_pair": torch.arange(3)})
        torch.testing.assert_close(torch.stack(list(found.values())), expected, rtol=1e-5, atol=1e-5)
        # and it says so in its own checkpoints
        again = self.stored(module)
        other = ResidualDiffusionModule(network=song, sampler=SAMPLER)
        other.mean_model = self.other_regression(contract)
        self.load(other, again)

    def test_the_mean_of_another_regression_is_in_units_of_the_diffusion(self, data, contract, other, monkeypatch):
        """Members are about the mean of a regression that has statistics of its own."""
        regression = self.other_regression(other)
        module = ResidualDiffusionModule(network=song, sampler=SAMPLER, force=True)
        module.mean_model = regression
        ready(module, contract).eval()
        module.denoiser.network.head.weight.data.zero_()
        module.scale.factor.fill_(1e6)  # no residual
        batch = data._stored().read(data._rows["test"][:3])
        with torch.no_grad():
            expected = regression.rows(batch | {"row_pair": torch.arange(3)})
        scale = expected.abs().amax((0, 2, 3))[:, None, None]
        found = generated(module, data, 2, 9)
        pairs = list(dict.fromkeys(pair for pair, _ in found))
        for (pair, _), field in found.items():
            torch.testing.assert_close(field / scale, expected[pairs.index(pair)] / scale, rtol=0, atol=1e-5)
        checkpoint = self.stored(module)
        assert checkpoint["regression"]["contract"] == other.to_dict()
        assert checkpoint["contract"] == contract.to_dict()
        # what was forced is a pair of its own from now on
        monkeypatch.setattr(models, "build_model", lambda *_: RegressionModule(song))
        restored = ResidualDiffusionModule(network=song, sampler=SAMPLER)
        self.load(restored, checkpoint)
        for key, field in generated(restored.eval(), data, 2, 9).items():
            torch.testing.assert_close(field, found[key])

    def test_without_it_another_regression_is_refused(self, contract):
        checkpoint = self.stored(make_diffusion(contract))
        module = ResidualDiffusionModule(network=song)
        module.mean_model = self.other_regression(contract)
        with pytest.raises(InputError, match=r"another regression .* own \(model.force true overrides this\)$"):
            module.on_load_checkpoint(checkpoint)

    def test_a_diffusion_without_a_regression_gets_none(self, contract):
        checkpoint = self.stored(make_diffusion(contract, regression=None))
        module = ResidualDiffusionModule(network=song, force=True)
        module.mean_model = self.other_regression(contract)
        with pytest.raises(InputError, match=r"trained with another regression") as error:
            module.on_load_checkpoint(checkpoint)
        assert "model.force" not in str(error.value)

    def test_is_not_stored(self, contract):
        for module in (ready(RegressionModule(song, force=True), contract), make_diffusion(contract, force=True)):
            module.model_config = {"class_path": "x", "init_args": {"force": True, "seed": 5}}
            settings = self.stored(module)["model_config"]["init_args"]
            assert (settings["force"], settings["seed"]) == (False, 5)
            assert module.model_config["init_args"]["force"]


class TestCounting:
    def attached(self, data, **settings):
        module = RegressionModule(song)
        data.total_batch = settings.pop("total", None)
        values = {
            "world_size": 1,
            "accumulate_grad_batches": 1,
            "global_rank": 0,
            "is_global_zero": True,
            "current_epoch": 0,
            "num_training_batches": 9,
        }
        module._trainer = SimpleNamespace(datamodule=data, **(values | settings))
        return module

    def test_rounds_follow_from_the_total_batch(self, data):
        for world_size, rounds in ((1, 6), (2, 3), (3, 2)):
            module = self.attached(data, total=24, world_size=world_size)
            module._set_accumulation(data)
            assert module.trainer.accumulate_grad_batches == rounds
            assert module.total_batch == 24
        module = self.attached(data, world_size=2, accumulate_grad_batches=3)
        assert module.total_batch == 4 * 2 * 3

    @pytest.mark.parametrize(("total", "nearest"), [(22, "take 16 or 24"), (4, "take 8")])
    def test_what_cannot_be_divided_is_refused(self, data, total, nearest):
        module = self.attached(data, total=total, world_size=2)
        message = f"total_batch {total} is no multiple of data.batch_size 4 times 2 processes; {nearest}"
        with pytest.raises(InputError, match=message):
            module._set_accumulation(data)

    def test_a_step_of_more_pairs_than_there_are_is_refused(self, data):
        data.trainer = SimpleNamespace(global_rank=0, world_size=1, accumulate_grad_batches=16)
        with pytest.raises(
            InputError, match=r"a step of the optimiser takes 64 pairs .* the train split has 44: lower"
        ):
            data.train_dataloader()

    def test_what_makes_a_step_does_not_depend_on_the_batches(self, data):
        steps = []
        for batch_size, rounds in ((8, 1), (4, 2), (2, 4)):
            data.batch_size = batch_size
            data.trainer = SimpleNamespace(global_rank=0, world_size=1, accumulate_grad_batches=rounds)
            loader = data.train_dataloader()
            loader.set_epoch(3)
            batches = [batch["index"].tolist() for batch in loader]
            assert len(batches) == len(loader) == 5 * rounds
            assert all(len(rows) == batch_size for rows in batches)
            steps.append(np.array(batches).reshape(5, 8).tolist())
        assert steps[0] == steps[1] == steps[2]

    def test_random_numbers_follow_from_the_place_in_the_training(self, data, batch):
        def drawn(seed=11, batch_idx=5, **settings):
            module = self.attached(data, **settings)
            module._seed = seed
            torch.rand(3)  # others draw, too
            module.on_train_batch_start(batch, batch_idx)
            return torch.rand(4).tolist()

        first = drawn()
        assert drawn() == first
        others = [drawn(seed=12), drawn(batch_idx=6), drawn(global_rank=1), drawn(current_epoch=1)]
        assert len({tuple(numbers) for numbers in [first, *others]}) == 5

    def test_the_seed_is_that_of_the_fit_that_goes_on(self, data):
        module = self.attached(data, estimated_stepping_batches=float("inf"))
        torch.manual_seed(21)
        module.on_train_start()
        assert module._seed == 21
        torch.manual_seed(22)
        module.on_train_start()
        assert module._seed == 21

    def test_it_is_said_how_long_a_fit_is(self, data, capsys):
        module = self.attached(data, estimated_stepping_batches=1100)
        module.on_train_start()
        pairs, batch = data.n_pairs("train"), module.total_batch
        times = 1100 * batch / pairs
        expected = f"{1100 * batch:,} samples in 1,100 steps of {batch}: {times:.1f} times the {pairs} training pairs"
        assert expected in capsys.readouterr().out


def test_half_precision_is_nearly_single_precision(contract, batch):
    module = make_diffusion(contract).eval()
    with torch.no_grad():
        fields = module.mean_model.built(batch)
        with torch.autocast("cpu", torch.bfloat16):
            half = module.mean_model.built(batch)
        condition = module._condition(module.conditioner(batch), fields)
        x, sigma = torch.randn(fields.shape, generator=torch.Generator().manual_seed(0)), torch.full((8,), 0.7)
        denoised = module.denoiser(x, sigma, condition)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = module.denoiser(x, sigma, condition)
    assert half.dtype == rounded.dtype == torch.float32
    for one, other in ((fields, half), (denoised, rounded)):
        assert not torch.equal(one, other)
        assert float((one - other).norm() / one.norm()) < 3e-2
