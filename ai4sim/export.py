"""Networks as files that a model code or a service calls, checked against the eager network when they are made."""

import copy
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

_LARGEST_ROUNDING = 1e-3  # what differs by more is no matter of precision


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
    normalize: Callable[[Tensor], Tensor] = lambda y: y,
) -> ExportReport:
    """Export a network with a free batch size and check the file against the eager network.

    Args:
        network: maps (B, ...) to (B, ...).
        example: realistic inputs (B >= max(batch_sizes), ...) on which the check is made.
        path: ``.onnx`` or ``.pt2`` decides the format.
        input_name: name of the input in the file.
        output_name: name of the output in the file.
        tolerance: largest difference allowed, as a share of the root mean square of the output; or three times what
            the eager network in single precision is itself off from double precision, where that is more.
        batch_sizes: batch sizes to check; sizes other than the traced one show whether the batch is really free.
        normalize: brings outputs of different units to one scale before they are compared.

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
        error, rounding = _largest_differences(network, load_exported(partial), example, batch_sizes, normalize)
        allowed = max(tolerance, min(3 * rounding, _LARGEST_ROUNDING))
        if not error <= allowed:
            raise ExportError(
                f"{path.name} differs from the eager network by {error:.2e} of its RMS, allowed {allowed:.0e}"
            )
    return ExportReport(path, formats[path.suffix], error, tuple(batch_sizes))


@torch.no_grad()
def _largest_differences(
    network: nn.Module,
    run: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    example: Tensor,
    batch_sizes: Sequence[int],
    normalize: Callable[[Tensor], Tensor],
) -> tuple[float, float]:
    """Largest absolute differences over the root mean square of the eager network's output.

    Returns:
        Between file and eager network; and between the eager network in single and in double precision, which is what
        an order of operations of its own may cost a file.
    """
    exact = normalize(copy.deepcopy(network).double()(example.double())).numpy()
    errors, rounding = [], 0.0
    for size in batch_sizes:
        eager = normalize(network(example[:size])).double().numpy()
        rms = float(np.sqrt(np.mean(eager**2)))
        own = normalize(torch.from_numpy(run(example[:size].numpy()))).double().numpy()
        errors.append(float(np.abs(own - eager).max()) / rms)
        rounding = max(rounding, float(np.abs(eager - exact[:size]).max()) / rms)
    return float(np.max(errors)), rounding  # NaN where there is one
