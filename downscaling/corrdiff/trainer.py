"""Command line: ``python -m downscaling.corrdiff.trainer {fit,test,predict,prepare,...} --config ...``."""

import json
import warnings
from pathlib import Path

import torch
from lightning.pytorch.cli import ArgsType
from torch import Tensor, nn

from ai4sim.cli import ExperimentCLI, ExperimentTrainer, run, wide_console
from ai4sim.errors import InputError
from ai4sim.experiment import load_model, read_checkpoint
from ai4sim.export import ExportReport, export_network
from downscaling.corrdiff import config
from downscaling.corrdiff.data import DownscalingData
from downscaling.corrdiff.diffusion.preconditioning import per_image
from downscaling.corrdiff.evaluation import HEADLINE, evaluate, score_table, skill_table
from downscaling.corrdiff.models import ResidualDiffusionModule
from downscaling.corrdiff.module_base import DownscalingModule
from downscaling.corrdiff.product import finish
from downscaling.corrdiff.regression_module import RegressionModule
from downscaling.corrdiff.residual_report import (
    correlations,
    crossing_table,
    load_weights,
    patch_size,
    residuals_of,
    spread_by_scale,
)

CONFIGURATIONS = (".yaml", ".yml")
SHARED_TRAINER_SETTINGS = ("accelerator", "strategy", "devices", "num_nodes", "precision")


class MeanFields(nn.Module):
    """A regression for use outside Python: physical units in and out.

    Args:
        model: a trained one.
    """

    def __init__(self, model: RegressionModule) -> None:
        super().__init__()
        self.regression, self.n_inputs, self.factor = model.built, len(model.known.inputs), model.known.factor

    def forward(self, x: Tensor) -> Tensor:
        """Mean fields (B, outputs, H, W).

        Args:
            x: (B, inputs + static, H, W): coarse fields, each value repeated over its fine points, and static ones.
        """
        inputs, static = x[:, : self.n_inputs, :: self.factor, :: self.factor], x[:, self.n_inputs :]
        conditioner = self.regression.conditioner
        return conditioner.physical(self.regression({"input": inputs, "static": static}))


class DenoisedResidual(nn.Module):
    """A denoiser for use in a sampler outside Python, in the scaled units of the residual.

    Args:
        model: a trained one.
    """

    def __init__(self, model: ResidualDiffusionModule) -> None:
        super().__init__()
        assert model.denoiser is not None
        self.denoiser, self.n_outputs = model.denoiser, len(model.known.outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Expected residuals (B, outputs, H, W).

        Args:
            x: (B, 1 + outputs + conditions, H, W): the noise level, the same everywhere, the noisy residual, and what
                the network is given beside it, standardised.
        """
        sigma, noisy, condition = x[:, 0, 0, 0], x[:, 1 : 1 + self.n_outputs], x[:, 1 + self.n_outputs :]
        edm = self.denoiser.edm
        skip, out, scale = (per_image(part(sigma)) for part in (edm.c_skip, edm.c_out, edm.c_in))
        # as the denoiser does, but in the precision of what is given
        output = self.denoiser.network(torch.cat([scale * noisy, condition], dim=1), edm.c_noise(sigma))
        denoised: Tensor = skip * noisy + out * output
        return denoised


def export(ckpt_path: Path, output: Path) -> ExportReport:
    """Export the network of a checkpoint, see :class:`MeanFields` and :class:`DenoisedResidual`.

    Args:
        ckpt_path: checkpoint of a trained model.
        output: ``.onnx`` or ``.pt2``.

    Returns:
        What was written, checked on random fields.

    Raises:
        InputError: the checkpoint is of another use case, or its networks need lead times.
    """
    model = load_model(ckpt_path)
    if not isinstance(model, (RegressionModule, ResidualDiffusionModule)):
        raise InputError(f"checkpoint {ckpt_path} is of {type(model).__name__}, expected one of {config.USE_CASE}")
    known = model.known
    if known.lead_labels:
        raise InputError(f"checkpoint {ckpt_path} is of forecasts with lead times, which are not exported")
    generator = torch.Generator().manual_seed(0)
    if isinstance(model, RegressionModule):
        own = model.built.conditioner
        rows, columns = (size // known.factor for size in known.shape)
        inputs = torch.randn(2, len(known.inputs), rows, columns, generator=generator)
        coarse = own.inputs.inverse(inputs).repeat_interleave(known.factor, -2).repeat_interleave(known.factor, -1)
        static = own.static.inverse(torch.randn(2, len(known.static), *known.shape, generator=generator))
        return export_network(MeanFields(model).eval(), torch.cat([coarse, static], dim=1), output)
    channels = model.n_inputs
    fields = torch.randn(2, channels, *known.shape, generator=generator)
    sigma = torch.tensor([0.3, 2.0]).reshape(2, 1, 1, 1).expand(2, 1, *known.shape)
    return export_network(DenoisedResidual(model).eval(), torch.cat([sigma, fields], dim=1), output)


class DownscalingTrainer(ExperimentTrainer):
    """The trainer with two commands more, about what a regression leaves."""

    def acf(self, model: DownscalingModule, datamodule: DownscalingData, ckpt_path: Path, pairs: int = 256) -> None:
        """Say how far apart points of the residual know of each other: what a patch must hold.

        Args:
            model: built from the checkpoint.
            datamodule: gives the training pairs.
            ckpt_path: checkpoint of a trained regression or diffusion.
            pairs: of the training, at most, spread over all.
        """
        load_weights(model, ckpt_path)
        datamodule.prepare_data()
        datamodule.setup("fit")
        along_x, along_y = correlations(residuals_of(model, datamodule, pairs))
        console = wide_console()
        console.print(crossing_table(along_x, along_y, model.known))
        console.print(patch_size(along_x, along_y), soft_wrap=True, highlight=False)

    def sampler_report(
        self, model: DownscalingModule, datamodule: DownscalingData, ckpt_path: Path, pairs: int = 256
    ) -> None:
        """Say what a sampler makes of the residual's spread at every scale; ``--model.sampler`` may name another one.

        Args:
            model: built from the checkpoint.
            datamodule: gives the training pairs, where the checkpoint does not know the residual's scales.
            ckpt_path: checkpoint of a trained diffusion.
            pairs: of the training, at most, spread over all.
        """
        load_weights(model, ckpt_path)
        if not isinstance(model, ResidualDiffusionModule):
            raise InputError(f"checkpoint {ckpt_path} is of a {type(model).__name__}, which has no sampler")
        report = spread_by_scale(model, datamodule, pairs)
        wide_console().print(str(report), soft_wrap=True, highlight=False, markup=False)


class DownscalingCLI(ExperimentCLI):
    """The command line; a diffusion whose regression is a configuration has that trained first."""

    trainer_type = DownscalingTrainer

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """All commands, with those about residuals."""
        return {**ExperimentCLI.subcommands(), **{name: {"model", "datamodule"} for name in ("acf", "sampler_report")}}

    def before_instantiate_classes(self) -> None:
        """Train the regression, or leave it to the checkpoint."""
        settings = self.config[self.config.subcommand].model.init_args
        given = settings.get("regression")
        if given is not None and Path(given).suffix in CONFIGURATIONS:
            fits = self.config.subcommand == "fit" and not self.config[self.config.subcommand].get("ckpt_path")
            settings.regression = self._train_first(Path(given)) if fits else None
            # a training before must not change the random numbers of this one
            self._set_seed()
        super().before_instantiate_classes()

    def after_instantiate_classes(self) -> None:
        """Make the networks of a checkpoint before anybody copies or counts them: they bring their regression."""
        super().after_instantiate_classes()
        checkpoint = self.config[self.config.subcommand].get("ckpt_path")
        if checkpoint and isinstance(self.model, DownscalingModule):
            self.model.on_load_checkpoint(read_checkpoint(Path(checkpoint)))

    def _train_first(self, configuration: Path) -> Path:
        """The best checkpoint of a training of its own, on the data, devices and seed of the diffusion's."""
        own = self.config[self.config.subcommand]
        text = self._parser(self.config.subcommand).dump(own, format="json", skip_unset=False, skip_link_targets=False)
        settings = json.loads(text)
        words = ["fit", "--config", str(self._found(configuration)), f"--data={json.dumps(settings['data'])}"]
        for name in SHARED_TRAINER_SETTINGS:
            value = settings["trainer"][name]
            words.append(f"--trainer.{name}={value if isinstance(value, str) else json.dumps(value)}")
        if isinstance(own.get("seed_everything"), int):
            words.append(f"--seed_everything={json.dumps(own.seed_everything)}")
        self.console.print(f"first the regression, by {configuration}", highlight=False)
        first = make_cli(words)
        best = getattr(first.trainer.checkpoint_callback, "best_model_path", "")
        if not best:
            raise InputError(
                f"model.regression: the training of {configuration} was interrupted, or kept no checkpoint"
            )
        return Path(best)

    def _found(self, configuration: Path) -> Path:
        """A configuration, also beside that of the diffusion."""
        files = [
            Path(str(file)) for file in self.config[self.config.subcommand].get("config") or [] if file is not None
        ]
        for folder in (Path(), *(folder for file in files for folder in (file.parent, file.parent.parent))):
            if (folder / configuration).is_file():
                return folder / configuration
        raise InputError(f"model.regression {configuration} does not exist")


def make_cli(args: ArgsType = None) -> DownscalingCLI:
    """The command line, without care for errors."""
    return DownscalingCLI(
        DownscalingModule,
        DownscalingData,
        use_case=config.USE_CASE,
        evaluate=evaluate,
        exporter=export,
        headline=HEADLINE,
        tables=lambda scorecard: [score_table(scorecard), skill_table(scorecard)],
        product=finish,
        model_choices=True,
        args=args,
    )


def main(args: ArgsType = None) -> ExperimentCLI:
    """Run the command line; ``args`` in place of the process's own."""
    # the regression's, which the diffusion does not train
    warnings.filterwarnings("ignore", message="Found .* module.* in eval mode at the start of training")
    return run(lambda: make_cli(args))


if __name__ == "__main__":
    main()
