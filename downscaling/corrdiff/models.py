"""The second training: the distribution of what the regression leaves, by diffusion."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
import xarray as xr
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as computed_again

from ai4sim.errors import InputError
from ai4sim.experiment import MODEL_CONFIG, build_model
from ai4sim.modules import OptimizerFactory, SharedFactory
from downscaling.corrdiff.batches import MEAN, Batch
from downscaling.corrdiff.conditioning import Conditioner
from downscaling.corrdiff.contract import Contract
from downscaling.corrdiff.data import DownscalingData
from downscaling.corrdiff.diffusion import (
    Denoise,
    Denoiser,
    Edm,
    HeunSampler,
    LogNormal,
    LossMaps,
    MemberNoise,
    NoiseLevels,
    PatchedDenoiser,
    Patches,
    RandomPatches,
    ResidualScale,
    Sampler,
    Tiles,
    Uncertainty,
    diffusion_loss,
    generator_of,
    squared_error,
    step_error,
)
from downscaling.corrdiff.kept_means import KeptMeans
from downscaling.corrdiff.memory import GIB, StepMemory, passing_bytes, per_image
from downscaling.corrdiff.module_base import (
    CONTRACT,
    FORCE,
    DownscalingModule,
    NetworkFactory,
    Schedule,
    default_optimizer,
)
from downscaling.corrdiff.networks import SongUNet
from downscaling.corrdiff.probe import Probe, ProbeSums, probe_scores
from downscaling.corrdiff.regression import extras_of, require_domain, require_network, takes_corners
from downscaling.corrdiff.regression_module import REGRESSION, RegressionModule, hash_of, load_regression
from downscaling.corrdiff.survey import ScaleSurvey, Surveyor

SURVEY, SPREAD = "survey", "spread"
PREFIX = "mean_model."
logger = logging.getLogger(__name__)

SHOWN = 3
"""Warnings of the sampler that are shown at most."""
BINS = 8
"""Noise levels that the validation tells apart."""


class ResidualDiffusionModule(DownscalingModule):
    """Learns the distribution of what the regression leaves, and draws ensembles.

    The regression is part of the checkpoint: a trained model needs no other file.

    Args:
        regression: checkpoint of its training; without one the diffusion learns the fields themselves.
        network: makes the denoiser's network from its numbers of inputs and outputs.
        edm: noise and its weights.
        noise_levels: which are trained.
        sampler: draws members.
        mean_conditioning: whether the denoiser is given the regression's mean.
        mean_memory: memory for the regression's means of the training pairs, GiB; where they need more, every step
            computes its own. With small patches that is the larger part of a step.
        residual_scaling: ``std`` gives every output's residual the standard deviation sigma_data, ``none`` leaves it.
        scaling_pairs: training pairs that the residuals' standard deviations are measured on, at most.
        patches: parts of the fields that a step learns from; whole fields by default.
        patch_chunk: patches that the network gets at once in training: the others are kept back, and all that one
            chunk needs for its gradient is computed again. The memory that a step needs does not grow with the number
            of patches, it takes a third more time, and the gradient is the same. By default all at once.
        tiles: how whole fields are denoised patch by patch; all at once by default.
        overview: whether patches are given the whole coarse fields, too.
        uncertainty: whether noise levels are weighed by how much can be learnt of them (Karras et al. 2024).
        probe: draws a few members during the training, to score them and to tune their spread.
        shared_noise_in_time: whether a member has the same noise in all cases.
        seed: of the members.
        optimizer: see `DownscalingModule`.
        schedule: see `DownscalingModule`.
        force: see `DownscalingModule`; with a regression given, use it also for a checkpoint of another one.

    Raises:
        InputError: a patch_chunk or scaling_pairs below 1.
    """

    generative = True

    def __init__(
        self,
        regression: Path | None = None,
        network: NetworkFactory = SongUNet,
        edm: Edm | None = None,
        noise_levels: NoiseLevels | None = None,
        sampler: Sampler | None = None,
        mean_conditioning: bool = True,
        mean_memory: float = 1.0,
        residual_scaling: Literal["std", "none"] = "std",
        scaling_pairs: int = 512,
        patches: RandomPatches | None = None,
        patch_chunk: int | None = None,
        tiles: Tiles | None = None,
        overview: bool = False,
        uncertainty: bool = False,
        probe: Probe | None = None,
        shared_noise_in_time: bool = False,
        seed: int = 0,
        optimizer: OptimizerFactory = default_optimizer,
        schedule: Schedule | None = None,
        force: bool = False,
    ) -> None:
        super().__init__(optimizer, schedule, force)
        for name, value in (("patch_chunk", patch_chunk), ("scaling_pairs", scaling_pairs)):
            if value is not None and value < 1:
                raise InputError(f"model.{name} is {value}; expected at least 1")
        self.regression_file, self.network_factory = regression, SharedFactory(network)
        self.edm, self.noise_levels = edm or Edm(), noise_levels or LogNormal()
        self.sampler: Sampler = sampler or HeunSampler()
        self.mean_conditioning, self.residual_scaling = mean_conditioning, residual_scaling
        self.mean_memory = mean_memory
        self.scaling_pairs, self.patches, self.patch_chunk = scaling_pairs, patches, patch_chunk
        self.tiles, self.overview = tiles, overview
        self.shared_noise_in_time, self.noise_seed = shared_noise_in_time, seed
        self.uncertainty = Uncertainty() if uncertainty else None
        self.mean_model: RegressionModule | None = None
        self._kept: KeptMeans | None = None
        self._converts = False
        self._restored = False
        self.denoiser: Denoiser | None = None
        self.scale: ResidualScale | None = None
        self.survey: ScaleSurvey | None = None
        self.probe = probe
        self.spread: Tensor | None = None
        self._sigma: Tensor | None = None
        self._validated = torch.zeros(BINS, 2, dtype=torch.float64)

    @property
    def label(self) -> str:
        """Name in scorecards: that of the method."""
        return "corrdiff" if self.gives_mean else "diffusion"

    @property
    def gives_mean(self) -> bool:
        """Whether there is a regression."""
        return self.mean_model is not None

    # -- networks

    def build(self, contract: Contract) -> None:
        """See `DownscalingModule.build`.

        Raises:
            InputError: the regression is of other data, or the network is not made for such data.
        """
        if self.mean_model is None and self.regression_file is not None:
            self.mean_model = load_regression(self.regression_file)
        if self.mean_model is not None:
            if not self._restored:
                self.agreed(self.mean_model.known, contract, "the regression")
            self.mean_model.require_shape(contract.shape)
            self.mean_model.requires_grad_(requires_grad=False)
        n = len(contract.outputs)
        inputs = n + contract.n_conditions
        if self.mean_model is not None and self.mean_conditioning:
            inputs += n
        if self.overview:
            inputs += contract.n_conditions
        self.n_inputs = inputs
        self.conditioner = Conditioner(contract)
        self._converts = self.mean_model is not None and not self.mean_model.known.standardises_as(contract)
        self.denoiser = Denoiser(self.network_factory(inputs, n), self.edm)
        require_network(self.denoiser.network, contract, ())
        self.scale = ResidualScale(n, self.edm.sigma_data)

    def require_shape(self, shape: tuple[int, int]) -> None:
        """See `DownscalingModule.require_shape`."""
        assert self.denoiser is not None
        require_domain(self.denoiser.network, shape)
        if self.mean_model is not None:
            self.mean_model.require_shape(shape)

    def train(self, mode: bool = True) -> "ResidualDiffusionModule":
        """The regression is never trained here: its dropout stays off."""
        super().train(mode)
        if self.mean_model is not None:
            self.mean_model.eval()
        return self

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add how to make the regression; its file is not needed any more."""
        super().on_save_checkpoint(checkpoint)
        if self.model_config is not None:
            settings = checkpoint[MODEL_CONFIG]["init_args"] | {"regression": None}
            checkpoint[MODEL_CONFIG] = self.model_config | {"init_args": settings}
        if self.mean_model is not None:
            checkpoint[REGRESSION] = {
                MODEL_CONFIG: self.mean_model.model_config,
                "hash": hash_of(self.mean_model),
                CONTRACT: self.mean_model.known.to_dict(),
            }
        if self.survey is not None:
            checkpoint[SURVEY] = self.survey.to_dict()
        if self.spread is not None:
            checkpoint[SPREAD] = self.spread.cpu()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Make the regression of the checkpoint.

        Raises:
            InputError: a regression was given, and it is another one, which nobody forces.
        """
        self._require_own(checkpoint)
        stored, given = checkpoint.get(REGRESSION), self.regression_file
        if self.mean_model is None and given is not None and given.is_file():
            self.mean_model = load_regression(given)
        if self.mean_model is None and stored is not None:
            model = build_model(stored[MODEL_CONFIG], "the regression of the checkpoint")
            assert isinstance(model, RegressionModule)
            # they differ where that was forced
            model.contract = Contract.from_dict(stored.get(CONTRACT, checkpoint[CONTRACT]))
            model.build(model.contract)
            model.model_config = stored[MODEL_CONFIG]
            own = {n.removeprefix(PREFIX): v for n, v in checkpoint["state_dict"].items() if n.startswith(PREFIX)}
            model.load_state_dict(own)
            self.mean_model, self._restored = model.eval(), True
        elif self.mean_model is not None and (stored is None or stored["hash"] != hash_of(self.mean_model)):
            text = f"the diffusion of the checkpoint was trained with another regression than {self.regression_file}"
            # what was trained without any does not know residuals
            if stored is None or not self.force:
                hint = "" if stored is None else FORCE
                raise InputError(f"{text}: set model.regression to null to take the checkpoint's own{hint}")
            self.override(text)
            self._insert_regression(checkpoint)
        super().on_load_checkpoint(checkpoint)
        stored_survey = checkpoint.get(SURVEY)
        if stored_survey is not None and "finest" in stored_survey:  # earlier ones were of other bands
            self.survey = ScaleSurvey.from_dict(stored_survey)
        self.spread = checkpoint.get(SPREAD)

    def _insert_regression(self, checkpoint: dict[str, Any]) -> None:
        """Put the weights of the regression in the place of those in the checkpoint, which are to be loaded yet."""
        assert self.mean_model is not None
        own = {PREFIX + name: values for name, values in self.mean_model.state_dict().items()}
        for part in ("state_dict", "current_model_state"):
            if part in checkpoint:
                others = {name: values for name, values in checkpoint[part].items() if not name.startswith(PREFIX)}
                checkpoint[part] = others | own

    # -- training

    @property
    def learner(self) -> tuple[nn.Module, int]:
        """See `DownscalingModule.learner`."""
        assert self.denoiser is not None
        assert isinstance(self.denoiser.network, nn.Module)
        return self.denoiser.network, self.n_inputs

    def step_memory(self, data: DownscalingData) -> StepMemory | None:
        """See `DownscalingModule.step_memory`; with what the regression's means need."""
        memory = super().step_memory(data)
        if memory is None or self.mean_model is None:
            return memory
        shape = (len(self.known.outputs), *self.known.shape)
        kept = KeptMeans.size(data.n_pairs("train"), shape)
        whole = Patches.whole(torch.empty(1, 1, *self.known.shape, device="meta"))
        with self.trainer.precision_plugin.forward_context():
            passing = per_image(passing_bytes, *self.mean_model.learner, whole, self.trainer.strategy.root_device)
        mean, once = passing or (0, 0)
        means = kept if kept <= self.mean_memory * GIB else 0
        return replace(memory, mean=mean, means=means, weights=memory.weights + once)

    def on_fit_start(self) -> None:
        """Compute the means of the training pairs; measure the residuals, unless a checkpoint has done so."""
        data = self.datamodule
        assert self.scale is not None
        if isinstance(data, DownscalingData):
            self._keep_means(data)
        if self.residual_scaling == "none" or not bool((self.scale.factor == 1).all()):
            return
        assert isinstance(data, DownscalingData)
        surveyor = Surveyor(self.known.spacing_km)
        self.scale.fit(surveyor.watch(self.residuals(data, self.scaling_pairs)))
        self.survey = surveyor.result(self.scale.factor)
        self._report_sampler()

    def _keep_means(self, data: DownscalingData) -> None:
        """Compute the means of all training pairs once, where there is room for them."""
        self._kept = None  # of a fit before
        n_pairs, shape = data.n_pairs("train"), (len(self.known.outputs), *self.known.shape)
        if self.mean_model is None or KeptMeans.size(n_pairs, shape) > self.mean_memory * GIB:
            return
        kept = KeptMeans(n_pairs, shape, self.device)
        # as precise as in a step
        with self.trainer.precision_plugin.forward_context():
            kept.fill(self._training_pairs(data, n_pairs), self._mean)
        self._kept = kept

    def on_fit_end(self) -> None:
        """Give the memory of the means back."""
        self._kept = None

    def _report_sampler(self) -> None:
        """Say what the sampler makes of the spread, and warn where it is off."""
        if not self.trainer.is_global_zero:
            return
        std = torch.tensor([self.edm.sigma_data], dtype=torch.float64)
        gain = float(step_error(self.sampler, std))
        name, calls = type(self.sampler).__name__, self.sampler.calls
        steps = f"{self.sampler.schedule.num_steps} steps, {calls} calls of the network"
        print(f"{name}: {steps}; spread of a normal residual {gain:.3f} times the true one")
        if self.survey is None:
            return
        warnings = self.survey.report(self.sampler, [channel.name for channel in self.known.outputs]).warnings
        for warning in warnings[:SHOWN]:
            logger.warning("%s", warning)
        if len(warnings) > SHOWN:
            logger.warning("... and %d more of this kind", len(warnings) - SHOWN)

    def on_test_start(self) -> None:
        """Say what is to be expected of the sampler."""
        self._report_sampler()

    def on_predict_start(self) -> None:
        """Say what is to be expected of the sampler."""
        self._report_sampler()

    def residuals(self, data: DownscalingData, most: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Residuals (B, outputs, H, W) of training pairs, not yet scaled, and where they are known.

        Args:
            data: set up.
            most: pairs, spread over all; the same for all processes.
        """
        for batch in self._training_pairs(data, most):
            target = self.conditioner.outputs(batch["output"])
            yield target - self._training_mean(batch), torch.isfinite(target)

    def _training_pairs(self, data: DownscalingData, most: int) -> Iterator[Batch]:
        """As `DownscalingData.some_pairs`, on the device."""
        for batch in data.some_pairs("train", most):
            yield {name: values.to(self.device) for name, values in batch.items()}

    def _training_mean(self, batch: Batch) -> Tensor:
        """As `_mean`, of training pairs."""
        return self._mean(batch) if self._kept is None else self._kept(batch)

    def _mean(self, batch: Batch) -> Tensor:
        """Standardised mean (B, outputs, H, W) of the regression; 0 without one."""
        if self.mean_model is None:
            static = batch["static"]
            return static.new_zeros(len(static), len(self.known.outputs), *static.shape[-2:])
        own = self.mean_model.built
        with torch.no_grad():
            mean: Tensor = own(batch)
            if self._converts:
                mean = self.conditioner.outputs(own.conditioner.physical(mean))
        return mean

    def _condition(self, local: Tensor, mean: Tensor) -> Tensor:
        """What the denoiser is given of whole fields: the mean first."""
        return torch.cat([mean, local], dim=1) if self.mean_model is not None and self.mean_conditioning else local

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of a batch of pairs, each with a noise level of its own."""
        assert self.scale is not None
        local, target = self.conditioner(batch), self.conditioner.outputs(batch["output"])
        mean = self._training_mean(batch)
        patches = Patches.whole(target) if self.patches is None else self.patches.draw(target.shape[-2:], len(target))
        fields = self.scale(target - mean), self._condition(local, mean), local
        n, size = len(patches), self.patch_chunk or len(patches)
        self._sigma = sigma = self.noise_levels.sample(n, device=self.device)
        noise = self.edm.noise(sigma, (n, target.shape[1], *patches.patch))
        sums = []
        for start in range(0, n, size):
            chunk = partial(self._summed_losses, batch, patches.chunk(start, start + size))
            drawn = sigma[start : start + size], noise[start : start + size]
            if size >= n:
                sums.append(chunk(*fields, *drawn))
            else:
                sums.append(computed_again(chunk, *fields, *drawn, use_reentrant=False))
        loss, minimised, known = torch.stack(sums).sum(0)
        loss, minimised = loss / known.clamp(min=1), minimised / known.clamp(min=1)
        self.log(
            "train_loss",
            loss.detach(),
            on_step=False,
            on_epoch=True,
            prog_bar=True,
            sync_dist=True,
            batch_size=len(target),
        )
        return minimised

    def _summed_losses(
        self,
        batch: Batch,
        patches: Patches,
        residual: Tensor,
        condition: Tensor,
        local: Tensor,
        sigma: Tensor,
        noise: Tensor,
    ) -> Tensor:
        """Sums of the losses of patches and of what is minimised, and the number of values (3,).

        Args:
            batch: of pairs.
            patches: N of them.
            residual: (B, outputs, H, W), scaled.
            condition: (B, ..., H, W), see `_condition`.
            local: (B, conditions, H, W), for the overview.
            sigma: (N,) noise levels.
            noise: (N, outputs, h, w) of these levels.
        """
        assert self.denoiser is not None
        parts, given = patches.cut(residual), patches.cut(condition)
        if self.overview:
            given = torch.cat([given, patches.overview(local)], dim=1)
        extras = extras_of(batch, self.denoiser.network, patches)
        maps: LossMaps = diffusion_loss(self.denoiser, parts, sigma, noise, given, torch.isfinite(parts), **extras)
        loss = maps.values.sum()
        minimised = loss if self.uncertainty is None else self.uncertainty.weigh(maps, sigma).values.sum()
        return torch.stack([loss, minimised, maps.count().to(loss)])

    def last_draw(self) -> str:
        """Noise levels of the last step."""
        return "" if self._sigma is None else f" with sigma {', '.join(f'{s:.3g}' for s in self._sigma.tolist())}"

    # -- validation: the same noise every time

    def on_validation_epoch_start(self) -> None:
        """Begin the sums anew."""
        self._validated = torch.zeros(BINS, 2, dtype=torch.float64, device=self.device)
        if self.probe is not None and self._probe_is_due(self.probe):
            self._draw_probe(self.probe)

    def _probe_is_due(self, probe: Probe) -> bool:
        trainer = self.trainer
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return False
        last = trainer.max_epochs == self.current_epoch + 1 or self.global_step >= trainer.fit_loop.max_steps > 0
        return probe.is_due(self.current_epoch, last)

    @torch.inference_mode()
    def _draw_probe(self, probe: Probe) -> None:
        """Score members for some validation pairs, shared out over processes, and scale their spread from now on."""
        data, names = self.datamodule, [channel.name for channel in self.known.outputs]
        assert isinstance(data, DownscalingData)
        sums, rank, size = ProbeSums(len(names), self.device), self.global_rank, probe.members
        for batch in islice(data.some_pairs("validation", probe.pairs, at_once=1), rank, None, self.trainer.world_size):
            own = {name: values.to(self.device) for name, values in batch.items()}
            local, mean = self.conditioner(own), self._mean(own)
            place, member = torch.zeros(size, dtype=torch.int64), torch.arange(size)
            drawn = self._members(own, self._condition(local, mean), local, place, member, tuned=False)
            sums.add(drawn[None], self.conditioner.outputs(own["output"]) - mean)
        total = self.trainer.strategy.reduce(sums.values, reduce_op="sum")
        assert isinstance(total, Tensor)
        scores, ratios = probe_scores(total, size)
        for name, score, ratio in zip(names, scores, ratios, strict=True):
            self.log(f"probe_crps_{name}", score)
            self.log(f"probe_ssr_{name}", ratio)
        if probe.tune_spread:
            self.spread = (1 / ratios).float().clamp(0.5, 2.0).reshape(-1, 1, 1).clone()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Sum up losses of whole fields, by noise level."""
        assert self.scale is not None
        local, target = self.conditioner(batch), self.conditioner.outputs(batch["output"])
        mean = self._mean(batch)
        residual = self.scale(target - mean)
        cases = batch["case"].tolist()
        generators = [generator_of("validation", case) for case in cases]
        share = torch.tensor([own.uniform(1e-4, 1 - 1e-4) for own in generators])
        sigma = self.noise_levels.quantile(share).float()
        numbers = MemberNoise(cases, [MEAN] * len(cases), residual.shape[1:], nu=self.edm.nu, device=self.device).draw()
        placed = sigma.to(self.device)
        noisy = residual + placed.reshape(-1, 1, 1, 1) * numbers
        denoise = self._denoise_whole(batch, self._condition(local, mean), local)
        losses = squared_error(denoise(noisy, placed), residual).per_image() * self.edm.weight(placed)
        for place, loss in zip(self.noise_levels.bin_of(sigma, BINS).tolist(), losses.double(), strict=True):
            self._validated[place] += torch.stack([loss, torch.ones_like(loss)])

    def on_validation_epoch_end(self) -> None:
        """Log the loss over all processes, and of every bin of noise levels."""
        total = self.trainer.strategy.reduce(self._validated, reduce_op="sum")
        assert isinstance(total, Tensor)
        self.log("val_loss", total[:, 0].sum() / total[:, 1].sum().clamp(min=1), prog_bar=True)
        for place, (loss, n) in enumerate(total):
            if n > 0:  # few pairs do not fill all bins
                self.log(f"val_loss_noise_{place + 1}", loss / n)

    # -- members

    def rows(self, batch: Batch) -> Tensor:
        """See `DownscalingModule.rows`: the mean, or a member drawn for the row."""
        local = self.conditioner(batch)
        mean = self._mean(batch)
        fields, place, drawn = mean[batch["row_pair"]], batch["row_pair"], batch["member"] != MEAN
        if bool(drawn.any()):
            fields[drawn] += self._members(
                batch, self._condition(local, mean), local, place[drawn], batch["member"][drawn]
            )
        return self.conditioner.physical(fields)

    def _members(
        self, batch: Batch, condition: Tensor, local: Tensor, place: Tensor, member: Tensor, *, tuned: bool = True
    ) -> Tensor:
        """Residuals (R, outputs, H, W) of members, in standardised units, by default with the spread of the probe."""
        assert self.scale is not None
        own = {name: values[place] for name, values in batch.items() if name == "lead"}
        denoise = self._denoise_whole(own, condition[place], local[place])
        noise = MemberNoise(
            batch["case"][place].tolist(),
            member.tolist(),
            (len(self.known.outputs), *condition.shape[-2:]),
            seed=self.noise_seed,
            nu=self.edm.nu,
            shared_in_time=self.shared_noise_in_time,
            device=self.device,
        )
        drawn = self.sampler.sample(denoise, noise)
        if not bool(torch.isfinite(drawn).all()):
            bad = int(torch.isfinite(drawn).flatten(1).all(1).logical_not().nonzero()[0, 0])
            raise InputError(
                f"member {int(member[bad])} of pair {int(batch['case'][place[bad]])} is not finite: lower "
                "model.sampler's sigma_max, or train longer"
            )
        residual = self.scale.inverse(drawn.float())
        return residual * self.spread.to(residual) if tuned and self.spread is not None else residual

    def _denoise_whole(self, batch: Batch, condition: Tensor, local: Tensor) -> Denoise:
        """The denoiser of whole images, all at once or in tiles.

        Args:
            batch: of N images.
            condition: (N, ..., H, W), see `_condition`.
            local: (N, conditions, H, W), for the overview.
        """
        assert self.denoiser is not None
        extras = extras_of(batch, self.denoiser.network)
        if self.tiles is None:
            given = torch.cat([condition, local], dim=1) if self.overview else condition
            return partial(self._denoise, given, extras)
        return PatchedDenoiser(
            self.denoiser,
            self.tiles,
            (int(condition.shape[-2]), int(condition.shape[-1])),
            condition=condition,
            overview=local if self.overview else None,
            give_corners=takes_corners(self.denoiser.network),
            **extras,
        )

    def _denoise(self, given: Tensor, extras: Batch, x: Tensor, sigma: Tensor) -> Tensor:
        """Of whole images at once."""
        assert self.denoiser is not None
        denoised: Tensor = self.denoiser(x, sigma, given, **extras)
        return denoised

    def complete_template(self, template: xr.Dataset) -> xr.Dataset:
        """Add the fields, and what the sampler was."""
        template = super().complete_template(template)
        template.attrs["sampler"] = repr(self.sampler)
        template.attrs["seed"] = self.noise_seed
        return template
