"""Command line: ``python -m weather_forecast.lam.trainer {fit,test,predict,prepare,describe,...} --config ...``."""

from pathlib import Path

import torch
from lightning.pytorch.cli import ArgsType
from torch import Tensor, nn

from ai4sim.cli import ExperimentCLI, run
from ai4sim.errors import InputError
from ai4sim.experiment import load_model
from ai4sim.export import ExportReport, export_network
from weather_forecast.lam import config
from weather_forecast.lam.data import LamData
from weather_forecast.lam.evaluation import HEADLINE, evaluate, lead_table
from weather_forecast.lam.forecaster import Forecaster
from weather_forecast.lam.models import LamModule


class OneStep(nn.Module):
    """One step of a forecast for use outside Python: physical units in and out.

    Args:
        forecaster: a trained one with a single input state, whose strategy needs one call per step.
    """

    def __init__(self, forecaster: Forecaster) -> None:
        super().__init__()
        self.forecaster = forecaster
        self.n_state = len(forecaster.info.state)
        self.n_forcing = len(forecaster.info.forcing)

    def forward(self, x: Tensor) -> Tensor:
        """The next state, before anything comes in through the boundary.

        Args:
            x: (batch, lat, lon, features): the state, the host's fields, the four encodings of hour and season, and the
                radiation at the top of the atmosphere (W m-2), the last three at the target time; physical units.

        Returns:
            (batch, lat, lon, outputs) in physical units.
        """
        own = self.forecaster
        state, host, clock, sun = x.split([self.n_state, self.n_forcing, 4, 1], dim=-1)
        parts = [clock, own.solar(sun)]
        if own.forcings is not None:
            parts.insert(0, own.forcings(host))
        states = (state - own.states.mean[: self.n_state]) / own.states.std[: self.n_state]
        outputs = own.step([states], torch.cat(parts, dim=-1), None)
        return own.physical(outputs[..., : len(own.info.outputs)])


def export(ckpt_path: Path, output: Path) -> ExportReport:
    """Export one step of a checkpoint's model, see :class:`OneStep`.

    Args:
        ckpt_path: checkpoint of a trained model.
        output: ``.onnx`` or ``.pt2``.

    Returns:
        What was written, checked on fields drawn from the training statistics.

    Raises:
        InputError: the network has no ONNX form, or needs more than one input state.
    """
    model = load_model(ckpt_path)
    if not isinstance(model, LamModule):
        raise InputError(f"{ckpt_path} is of a {type(model).__name__}, expected a LamModule")
    if output.suffix == ".onnx" and not model.network_class.onnx_supported:
        raise InputError(f"{model.label} cannot be written as ONNX; export it as .pt2")
    if model.n_inputs != 1:
        raise InputError(f"export needs a model with a single input state, this one has {model.n_inputs}")
    info, forecaster = model.built.info, model.built
    noise = torch.Generator().manual_seed(0)
    shape = (2, *info.shape)
    state = torch.randn(*shape, len(info.outputs), generator=noise) * forecaster.states.std + forecaster.states.mean
    host = torch.randn(*shape, len(info.forcing), generator=noise)
    if forecaster.forcings is not None:
        host = forecaster.forcings.inverse(host)
    clock = torch.rand(*shape, 4, generator=noise)
    sun = 1000 * torch.rand(*shape, 1, generator=noise)
    example = torch.cat([state[..., : len(info.state)], host, clock, sun], dim=-1)
    return export_network(OneStep(forecaster).eval(), example, output, normalize=forecaster.states)


def main(args: ArgsType = None) -> ExperimentCLI:
    """Run the command line; ``args`` in place of the process's own."""
    return run(
        lambda: ExperimentCLI(
            LamModule,
            LamData,
            use_case=config.USE_CASE,
            evaluate=evaluate,
            exporter=export,
            headline=HEADLINE,
            tables=lambda scorecard: [lead_table(scorecard)],
            args=args,
        )
    )


if __name__ == "__main__":
    main()
