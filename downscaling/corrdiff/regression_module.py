"""The first training: the mean by regression."""

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn

from ai4sim.errors import InputError
from ai4sim.experiment import MODEL_CONFIG, load_model, read_checkpoint
from ai4sim.modules import OptimizerFactory, SharedFactory
from downscaling.corrdiff.batches import Batch
from downscaling.corrdiff.contract import Contract
from downscaling.corrdiff.diffusion import LossMaps, Patches, RandomPatches, RegressionLoss
from downscaling.corrdiff.module_base import (
    NEVER_TRAINED,
    DownscalingModule,
    NetworkFactory,
    Schedule,
    default_optimizer,
)
from downscaling.corrdiff.networks import SongUNet
from downscaling.corrdiff.regression import Regression, require_domain, require_network

REGRESSION = "regression"


class RegressionModule(DownscalingModule):
    """Learns the mean of the fine fields, given the coarse ones.

    Args:
        network: makes the network from its numbers of inputs and outputs.
        patches: parts of the fields that a step learns from; whole fields by default.
        weights: of the outputs' errors by name, 1 by default; ``classes`` is that of the cross-entropy of all outputs
            that are probabilities.
        add_inputs: learn differences from the interpolated input of the same name, where there is one. Fields that the
            training has not seen the like of are then at least interpolated, which counts where data are few.
        optimizer: see `DownscalingModule`.
        schedule: see `DownscalingModule`.
        force: see `DownscalingModule`.
    """

    def __init__(
        self,
        network: NetworkFactory = SongUNet,
        patches: RandomPatches | None = None,
        weights: dict[str, float] | None = None,
        add_inputs: bool = False,
        optimizer: OptimizerFactory = default_optimizer,
        schedule: Schedule | None = None,
        force: bool = False,
    ) -> None:
        super().__init__(optimizer, schedule, force)
        self.network_factory = SharedFactory(network)
        self.patches, self.weights, self.add_inputs = patches, weights or {}, add_inputs
        self.regression: Regression | None = None
        self._validated = torch.zeros(2, dtype=torch.float64)

    @property
    def label(self) -> str:
        """Name in scorecards: the network's."""
        return REGRESSION if self.regression is None else type(self.regression.regressor.network).__name__

    def build(self, contract: Contract) -> None:
        """See `DownscalingModule.build`.

        Raises:
            InputError: the network is not made for such data.
        """
        n = len(contract.outputs)
        network = self.network_factory(n + contract.n_conditions, n)
        self.regression = Regression(contract, network, add_inputs=self.add_inputs)
        require_network(self.regression.regressor.network, contract, sorted(self.regression.conditioner.classes))
        self.loss = self._make_loss(contract)

    def require_shape(self, shape: tuple[int, int]) -> None:
        """See `DownscalingModule.require_shape`."""
        require_domain(self.built.regressor.network, shape)

    def _make_loss(self, contract: Contract) -> RegressionLoss:
        names = [channel.name for channel in contract.outputs]
        classes = [names.index(name) for name in contract.probabilities]
        terms = [name for name in names if name not in contract.probabilities] + ["classes"] * bool(classes)
        for name in self.weights:
            if name not in terms:
                raise InputError(f"model.weights names {name!r}; there are {', '.join(terms)}")
        loss = RegressionLoss([self.weights.get(name, 1.0) for name in terms] if self.weights else None, classes)
        loss.require_channels(len(names))
        return loss

    @property
    def built(self) -> Regression:
        """The networks.

        Raises:
            InputError: there are none: it was never trained.
        """
        if self.regression is None:
            raise InputError(NEVER_TRAINED)
        return self.regression

    @property
    def learner(self) -> tuple[nn.Module, int]:
        """See `DownscalingModule.learner`."""
        network = self.built.regressor.network
        assert isinstance(network, nn.Module)
        return network, len(self.known.outputs) + self.known.n_conditions

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of a batch of pairs."""
        own = self.built
        condition, target = own.conditioner(batch), own.conditioner.outputs(batch["output"])
        patches = Patches.whole(target) if self.patches is None else self.patches.draw(target.shape[-2:], len(target))
        target = patches.cut(target)
        maps: LossMaps = self.loss(own.of_patches(condition, batch, patches), target, torch.isfinite(target))
        loss = maps.mean()
        self.log(
            "train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, sync_dist=True, batch_size=len(target)
        )
        return loss

    def on_validation_epoch_start(self) -> None:
        """Begin the sums anew."""
        self._validated = torch.zeros(2, dtype=torch.float64, device=self.device)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Sum up errors of whole, standardised fields; of probabilities, too, and not of their logits."""
        own = self.built
        errors = (own(batch) - own.conditioner.outputs(batch["output"])).square()
        self._validated += torch.stack([errors.double().sum(), errors.new_tensor(errors.numel(), dtype=torch.float64)])

    def on_validation_epoch_end(self) -> None:
        """Log the mean squared error over all processes."""
        total = self.trainer.strategy.reduce(self._validated, reduce_op="sum")
        assert isinstance(total, Tensor)
        self.log("val_loss", total[0] / total[1].clamp(min=1), prog_bar=True)

    def rows(self, batch: Batch) -> Tensor:
        """See `DownscalingModule.rows`; all rows are means."""
        own = self.built
        return own.conditioner.physical(own(batch))[batch["row_pair"]]


def load_regression(path: Path) -> RegressionModule:
    """The regression of a checkpoint.

    Raises:
        InputError: there is none, or it is of another kind.
    """
    checkpoint = read_checkpoint(path)
    if REGRESSION in checkpoint:
        raise InputError(f"model.regression {path} is the checkpoint of a diffusion: give that of its regression")
    model = load_model(path)
    if not isinstance(model, RegressionModule):
        raise InputError(f"model.regression {path} is of a {type(model).__name__}; expected a RegressionModule")
    model.model_config = checkpoint[MODEL_CONFIG]
    return model


def hash_of(model: RegressionModule) -> str:
    """Of all weights and statistics."""
    digest = hashlib.sha256()
    for name, values in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(values.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
