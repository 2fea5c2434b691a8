"""The mean of the fine fields, given the coarse ones: a network and all that it needs, bare torch."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ai4sim.errors import InputError
from downscaling.corrdiff.batches import Batch
from downscaling.corrdiff.conditioning import Conditioner
from downscaling.corrdiff.contract import Contract
from downscaling.corrdiff.diffusion import Patches, Regressor


class Regression(nn.Module):
    """Standardised means of a batch of pairs.

    Args:
        contract: channels and statistics.
        network: maps (B, outputs + inputs + static, H, W) and noise labels (B,) to (B, outputs, H, W).
        add_inputs: let it give the difference from the interpolated input of the same name, where there is one.
    """

    def __init__(self, contract: Contract, network: nn.Module, *, add_inputs: bool = False) -> None:
        super().__init__()
        self.add_inputs = add_inputs
        self.conditioner = Conditioner(contract)
        self.regressor = Regressor(network, len(contract.outputs))

    def forward(self, batch: Batch) -> Tensor:
        """Standardised means (B, outputs, H, W) of whole fields; of probabilities, in training, their logits."""
        mean: Tensor = self.regressor(self.conditioner(batch), **extras_of(batch, self.regressor.network))
        return mean + self.conditioner.inputs_as_outputs(batch) if self.add_inputs else mean

    def of_patches(self, condition: Tensor, batch: Batch, patches: Patches) -> Tensor:
        """Standardised means (N, outputs, h, w) of patches.

        Args:
            condition: (B, conditions, H, W) of whole fields.
            batch: they are of.
            patches: N of them.
        """
        extras = extras_of(batch, self.regressor.network, patches)
        mean: Tensor = self.regressor(patches.cut(condition), **extras)
        return mean + patches.cut(self.conditioner.inputs_as_outputs(batch)) if self.add_inputs else mean


def extras_of(batch: Batch, network: Any, patches: Patches | None = None) -> dict[str, Tensor]:
    """What a network is told of a batch beside maps.

    Args:
        batch: of pairs.
        network: says how many ``lead_steps`` it tells apart, if it does, and whether it ``takes_corners``.
        patches: of the pairs; whole fields by default.

    Returns:
        ``lead_label`` (N,) where the network knows lead times, and ``corners`` (N, 2) of patches.
    """
    knows_leads = bool(getattr(network, "lead_steps", False))
    extras = {"lead_label": batch["lead"]} if knows_leads and "lead" in batch else {}
    if patches is None:
        return extras
    extras = {name: patches.repeat(values) for name, values in extras.items()}
    return extras | {"corners": patches.corners} if takes_corners(network) else extras


def takes_corners(network: Any) -> bool:
    """Whether a network is told where patches are."""
    return bool(getattr(network, "takes_corners", False))


def require_network(network: Any, contract: Contract, classes: Sequence[int]) -> None:
    """Make sure that a network is made for the data.

    Args:
        network: may have ``classes``, ``lead_steps`` and ``domain``, see
            :class:`~downscaling.corrdiff.networks.PositionedUNet`.
        contract: of the data.
        classes: outputs that must be probabilities, or logits in training.

    Raises:
        InputError: it is not.
    """
    own = list(getattr(network, "classes", []))
    if own != list(classes):
        if classes:
            names = ", ".join(contract.outputs[place].name for place in classes)
            raise InputError(
                f"outputs {names} are probabilities: model.network must be a PositionedUNet with probability_channels "
                f"{list(classes)}, not {own}"
            )
        raise InputError(
            f"model.network has probability_channels {own}, but none of what it learns are probabilities "
            "(what the diffusion learns never are)"
        )
    steps, labels = getattr(network, "lead_steps", 0), len(contract.lead_labels)
    if steps not in (0, labels):
        raise InputError(f"model.network has lead_steps {steps}, the data have {labels or 'no'} lead times")
    require_domain(network, contract.shape)


def require_domain(network: Any, shape: tuple[int, int]) -> None:
    """Make sure that a network which knows places knows those of the data.

    Raises:
        InputError: it is of another domain.
    """
    domain = getattr(network, "domain", None)
    if domain is not None and takes_corners(network) and tuple(domain) != tuple(shape):
        raise InputError(
            f"model.network has the domain {domain[0]} x {domain[1]}, the data have fields of {shape[0]} x {shape[1]}"
        )
