"""Command line: ``python -m weather_forecast.gwd.trainer {fit,test,predict,prepare,score,export} --config ...``."""

from pathlib import Path

import torch
from lightning.pytorch.cli import ArgsType

from ai4sim.cli import ExperimentCLI, run
from ai4sim.experiment import load_model
from ai4sim.export import ExportReport, export_network
from weather_forecast.gwd import config
from weather_forecast.gwd.data import GwdData
from weather_forecast.gwd.evaluation import HEADLINE, evaluate
from weather_forecast.gwd.models import GwdModule


def export(ckpt_path: Path, output: Path) -> ExportReport:
    """Export the network of a checkpoint; the file takes columns and gives tendencies in physical units.

    Args:
        ckpt_path: checkpoint of a trained model.
        output: ``.onnx`` or ``.pt2``.

    Returns:
        What was written, checked on columns drawn from the training statistics.
    """
    model = load_model(ckpt_path)
    assert isinstance(model, GwdModule)
    network = model.network
    network.inputs.require_fitted()
    noise = torch.randn(32, network.layout.n_inputs, generator=torch.Generator().manual_seed(0))
    return export_network(network, network.inputs.inverse(noise), output)


def main(args: ArgsType = None) -> ExperimentCLI:
    """Run the command line; ``args`` in place of the process's own."""
    return run(
        lambda: ExperimentCLI(
            GwdModule,
            GwdData,
            use_case=config.USE_CASE,
            evaluate=evaluate,
            exporter=export,
            headline=HEADLINE,
            args=args,
        )
    )


if __name__ == "__main__":
    main()
