"""Networks as files that a model code or a service calls, checked against the eager network when they are made."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ai4sim.atomic import atomic_path
from ai4sim.errors import InputError

ExportFormat = Literal["onnx", "torch"]


class ExportError(RuntimeError):
    """The exported network does not compute what the eager one does."""


@dataclass(frozen=True)
class ExportReport:
    """What was written and how well it agrees.

    Attributes:
        path: the file.
        format: ``onnx`` (opset of the exporter) or ``torch`` (``torch.export``).
        error: largest absolute difference to eager over the root mean square of the eager output.
        batch_sizes: the batch sizes at which it was checked.
    """

    path: Path
    format: ExportFormat
    error: float
    batch_sizes: tuple[int, ...]


def load_exported(path: Path) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """A function that runs an exported network, ``.onnx`` with ONNX Runtime or ``.pt2`` with torch, on arrays."""
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda x: np.asarray(session.run(None, {name: x})[0])
    program = torch.export.load(path).module()
    return lambda x: np.asarray(program(torch.from_numpy(x)).detach())


def export_network(
    network: nn.Module,
    example: Tensor,
    path: Path,
    *,
    input_name: str = "x",
    output_name: str = "y",
    tolerance: float = 1e-5,
    batch_sizes: Sequence[int] = (1, 2, 17),
) -> ExportReport:
    """Export a network with a free batch size and check the file against the eager network.

    Args:
        network: maps (B, ...) to (B, ...).
        example: realistic inputs (B >= max(batch_sizes), ...) on which the check is made.
        path: ``.onnx`` or ``.pt2`` decides the format.
        input_name: name of the input in the file.
        output_name: name of the output in the file.
        tolerance: largest difference allowed, as a share of the root mean square of the output.
        batch_sizes: batch sizes to check; sizes other than the traced one show whether the batch is really free.

    Raises:
        InputError: unknown suffix, or the ``export`` extra is not installed.
        ExportError: the file disagrees with the eager network; it is not kept.
    """
    formats: dict[str, ExportFormat] = {".onnx": "onnx", ".pt2": "torch"}
    if path.suffix not in formats:
        raise InputError(f"cannot tell the export format from {path.name}: use the suffix .onnx or .pt2")
    if path.suffix == ".onnx" and not all(find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime")):
        raise InputError('ONNX export needs the extra "export": pip install -e ".[export]"')

    network = network.eval()
    traced = example[:2]
    shapes = ({0: torch.export.Dim("batch")},)
    with atomic_path(path) as partial:
        if path.suffix == ".onnx":
            torch.onnx.export(
                network,
                (traced,),
                partial,
                input_names=[input_name],
                output_names=[output_name],
                dynamic_shapes=shapes,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        else:
            torch.export.save(torch.export.export(network, (traced,), dynamic_shapes=shapes), partial)
        error = _largest_difference(network, load_exported(partial), example, batch_sizes)
        if not error <= tolerance:
            raise ExportError(
                f"{path.name} differs from the eager network by {error:.2e} of its RMS, allowed {tolerance:.0e}"
            )
    return ExportReport(path, formats[path.suffix], error, tuple(batch_sizes))


def _largest_difference(
    network: nn.Module,
    run: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    example: Tensor,
    batch_sizes: Sequence[int],
) -> float:
    """Largest absolute difference between file and network over the root mean square of the network's output."""
    errors = []
    for size in batch_sizes:
        with torch.no_grad():
            eager = network(example[:size]).numpy()
        rms = float(np.sqrt(np.mean(eager.astype(np.float64) ** 2)))
        errors.append(float(np.abs(run(example[:size].numpy()) - eager).max()) / rms)
    return float(np.max(errors))  # NaN where there is one
