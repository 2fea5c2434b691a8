"""Command line: ``python -m precip_postproc.resunet_qpf.trainer {fit,test,predict,prepare,...} --config ...``."""

from pathlib import Path

import numpy as np
import torch
from lightning.pytorch.cli import ArgsType
from torch import Tensor, nn

from ai4sim.cli import ExperimentCLI, run
from ai4sim.errors import InputError
from ai4sim.experiment import load_model
from ai4sim.export import ExportReport, export_network
from precip_postproc.resunet_qpf import config
from precip_postproc.resunet_qpf.conditions import lead_conditions
from precip_postproc.resunet_qpf.data import QpfData
from precip_postproc.resunet_qpf.evaluation import HEADLINE, dry_table, evaluate, skill_table
from precip_postproc.resunet_qpf.heads import CsgdHead, GammaHead
from precip_postproc.resunet_qpf.models import QpfModule
from precip_postproc.resunet_qpf.product import finish


class Probabilities(nn.Module):
    """A network for use outside Python: fields in physical units in, probabilities of exceedance out.

    Args:
        model: a trained one.
    """

    def __init__(self, model: QpfModule) -> None:
        super().__init__()
        self.features, self.network, self.head = model.features, model.network, model.head

    def forward(self, x: Tensor) -> Tensor:
        """Probabilities (B, K, H, W) that the amount reaches the edges.

        Args:
            x: (B, C + 8, H, W): the fields that the features need, in that order, and the eight conditions, each the
                same everywhere; H and W multiples of the network's.
        """
        fields, conditions = x[:, : len(self.features.needs)], x[:, len(self.features.needs) :, 0, 0]
        outputs = self.network(self.features(fields, self.features.needs), conditions)
        probabilities: Tensor = self.head.exceedance(outputs)
        return probabilities


def export(ckpt_path: Path, output: Path) -> ExportReport:
    """Export the network of a checkpoint, see :class:`Probabilities`.

    Args:
        ckpt_path: checkpoint of a trained model.
        output: ``.onnx`` or ``.pt2``.

    Returns:
        What was written, checked on random fields.

    Raises:
        InputError: the checkpoint is of another use case, or its head has no counterpart in the format.
    """
    model = load_model(ckpt_path)
    if not isinstance(model, QpfModule):
        raise InputError(f"checkpoint {ckpt_path} is of {type(model).__name__}, expected a QpfModule")
    if output.suffix == ".onnx" and isinstance(model.head, (GammaHead, CsgdHead)):
        raise InputError(
            f"ONNX has no incomplete gamma function, which the probabilities of a {type(model.head).__name__} need: "
            "export with --format pt2"
        )
    noise = torch.Generator().manual_seed(0)
    fields = 3 * torch.rand(2, len(model.features.needs), 64, 64, generator=noise)
    times = np.array(["2025-12-01T12", "2025-06-01T18"], "datetime64[s]")
    conditions = torch.as_tensor(lead_conditions(np.array([12, 24]), times))
    example = torch.cat([fields, conditions[:, :, None, None].expand(-1, -1, 64, 64)], dim=1)
    return export_network(Probabilities(model).eval(), example, output)


def main(args: ArgsType = None) -> ExperimentCLI:
    """Run the command line; ``args`` in place of the process's own."""
    return run(
        lambda: ExperimentCLI(
            QpfModule,
            QpfData,
            use_case=config.USE_CASE,
            evaluate=evaluate,
            exporter=export,
            headline=HEADLINE,
            tables=lambda scorecard: [skill_table(scorecard), dry_table(scorecard)],
            product=finish,
            args=args,
        )
    )


if __name__ == "__main__":
    main()
