"""The command line of every use case: LightningCLI plus experiment folders, scores, preparation and export."""

import contextlib
import errno
import hashlib
import json
import logging
import shutil
import sys
import warnings
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Literal

import xarray as xr
from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import distributed

from ai4sim.datamodule import ExperimentData
from ai4sim.errors import InputError
from ai4sim.experiment import (
    MODEL_CONFIG,
    PREDICTIONS,
    PROVENANCE,
    experiments_folder,
    provenance,
    read_checkpoint,
    write_json,
)
from ai4sim.export import ExportReport
from ai4sim.gallery import find_figures
from ai4sim.modules import ExperimentModule
from ai4sim.plugins import load_plugins
from ai4sim.predictions import PredictionWriter, write_netcdf
from ai4sim.progress import EpochLog, training_callbacks
from ai4sim.resume import Progress
from ai4sim.speed import reading_speed
from ai4sim.verification import Scorecard

Evaluate = Callable[[Path], Scorecard]
Product = Callable[[xr.Dataset, Path, ExperimentData], xr.Dataset | xr.DataTree]

OWN_COMMANDS = ("prepare", "describe", "speedtest", "score", "export")
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG}


def wide_console() -> Console:
    """A console for tables, which need room: where there is no terminal to ask, take a wide line."""
    return Console(width=None if sys.stdout.isatty() else 120)


class ExperimentTrainer(Trainer):
    """Lightning's trainer with the corridor's own commands beside ``fit``, ``validate``, ``test`` and ``predict``."""

    evaluate: Evaluate
    exporter: Callable[[Path, Path], ExportReport]
    output: Path | None

    def prepare(self, model: LightningModule, datamodule: ExperimentData) -> None:
        """Make the processed data and stop."""
        datamodule.prepare_data()

    def describe(self, model: LightningModule, datamodule: ExperimentData) -> None:
        """Print what the training data are: variables, units, statistics, sizes of the splits."""
        datamodule.prepare_data()
        datamodule.setup("fit")
        console = wide_console()
        console.print(datamodule.summary())
        for key, value in datamodule.describe().items():
            text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
            console.print(f"{key}: {text}", soft_wrap=True, highlight=False, markup=False)

    def speedtest(self, model: LightningModule, datamodule: ExperimentData, seconds: float = 10.0) -> None:
        """Say how fast training batches are read, without any training.

        Args:
            model: not used.
            datamodule: gives the batches.
            seconds: of reading, at most; epoch after epoch.
        """
        datamodule.prepare_data()
        datamodule.setup("fit")
        speed = reading_speed(datamodule.train_dataloader(), seconds)
        Console(soft_wrap=True, highlight=False).print(
            f"{speed.samples_per_second:,.0f} samples/s, {speed.bytes_per_second / 1e6:,.0f} MB/s "
            f"({speed.samples} samples in {speed.batches} batches, {speed.seconds:.1f} s)"
        )

    def score(self, model: LightningModule, datamodule: ExperimentData, experiment: Path) -> None:
        """Score the predictions of a finished run again, without training.

        Args:
            model: not used.
            datamodule: not used.
            experiment: folder of the run, such as ``experiments/demo/version_0``.
        """
        if not (experiment / PREDICTIONS).is_dir():
            raise InputError(f"{experiment} holds no {PREDICTIONS}: give the folder of a run that was tested")
        self.evaluate(experiment)

    def export(
        self,
        model: LightningModule,
        datamodule: ExperimentData,
        ckpt_path: Path,
        format: Literal["onnx", "pt2"] = "onnx",
    ) -> None:
        """Write a network with physical units in and out for use outside Python training code.

        Args:
            model: built from the checkpoint.
            datamodule: not used.
            ckpt_path: checkpoint of a trained model.
            format: ``onnx`` or ``pt2`` (torch.export), where ``--output`` does not name the file.
        """
        path = self.output or ckpt_path.with_suffix(f".{format}")
        report = self.exporter(ckpt_path, path)
        sizes = ", ".join(str(size) for size in report.batch_sizes)
        Console(soft_wrap=True, highlight=False).print(
            f"exported to {report.path} ({report.format}); largest difference to the eager network at batch sizes "
            f"{sizes}: {report.error:.1e} of its RMS"
        )


class SaveExperiment(SaveConfigCallback):
    """Writes ``config.yaml`` and ``provenance.json`` into the run's folder; a resumed run adds numbered ones."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "save_to_log_dir": False})

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make sure that all processes know the folder, then write on the first."""
        # a collective call: it must not be made by the first process alone, as save_config is
        self._folder = trainer.log_dir
        super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write both files; called once, on the first process."""
        assert self._folder is not None
        folder = Path(self._folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            number = len(list(folder.glob("config*.yaml")))
            tag = f".resumed-{number}" if number else ""
            self.parser.save(self.config, folder / f"config{tag}.yaml", skip_unset=False, multifile=False)
            data: ExperimentData | None = getattr(trainer, "datamodule", None)
            described = {} if data is None else data.describe()
            values = provenance(seed=self.config.get("seed_everything"), data=described)
            write_json(folder / PROVENANCE.replace(".json", f"{tag}.json"), values)
        except OSError as error:
            raise InputError(f"cannot write the experiment folder {folder}: {error.strerror or error}") from error


class ExperimentCLI(LightningCLI):
    """One use case's command line.

    Beyond plain LightningCLI: every run has its own folder ``experiments/<name>/version_N``; ``fit`` is followed by a
    test of the best checkpoint and the evaluation against the baselines; ``test``, ``predict`` and ``export`` rebuild
    the model from the checkpoint, and what the user says explicitly wins over the checkpoint, with a note by key.

    Args:
        model_class: the use case's LightningModule.
        datamodule_class: the use case's LightningDataModule.
        use_case: path of the use case below the repository root.
        evaluate: makes scorecard and figures from a run's predictions.
        exporter: writes a checkpoint's network to a file: ``exporter(ckpt_path, output)``.
        headline: metrics of the printed scorecard.
        tables: further tables to print of a scorecard.
        product: makes of predictions, the path of the output and the data what ``predict`` writes, and draws figures
            beside the output if it likes; by default predictions are written as they are.
        model_choices: whether the configuration chooses one of its subclasses, by ``model.class_path``.
        args: arguments in place of the command line's.
    """

    trainer_type: type[ExperimentTrainer] = ExperimentTrainer
    """Where a use case has commands of its own, a subclass with a method for each; add them to `subcommands`."""

    def __init__(
        self,
        model_class: type[ExperimentModule],
        datamodule_class: type[ExperimentData],
        *,
        use_case: str,
        evaluate: Evaluate,
        exporter: Callable[[Path, Path], ExportReport],
        headline: Sequence[str],
        tables: Callable[[Scorecard], Sequence[Table]] = lambda scorecard: (),
        product: Product | None = None,
        model_choices: bool = False,
        args: ArgsType = None,
    ) -> None:
        self.use_case = use_case
        self.model_choices = model_choices
        self.evaluate = evaluate
        self.exporter = exporter
        self.headline = tuple(headline)
        self.tables = tables
        self.product = product
        self.console = wide_console()
        self._stored_model: dict[str, Any] | None = None
        self._claimed: Path | None = None
        load_plugins()
        with warnings.catch_warnings():
            # names that jsonargparse 5 removes, used by lightning 2.6 itself
            warnings.filterwarnings("ignore", message=".*jsonargparse.*", category=DeprecationWarning)
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*args parameter is intended to run from within Python.*")
            warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\).*")
            try:
                super().__init__(
                    model_class,
                    datamodule_class,
                    trainer_class=self.trainer_type,
                    subclass_mode_model=model_choices,
                    save_config_callback=SaveExperiment,
                    seed_everything_default=0,
                    # samplers here know ranks and epochs themselves
                    trainer_defaults={"use_distributed_sampler": False, "log_every_n_steps": 10},
                    auto_configure_optimizers=False,
                    args=args,
                )
            except BaseException:
                self._release()
                raise

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Lightning's commands and the corridor's own."""
        own: dict[str, set[str]] = {name: {"model", "datamodule"} for name in OWN_COMMANDS}
        return {**LightningCLI.subcommands(), **own}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Arguments that all commands have."""
        parser.add_argument("--name", type=str | None, default=None, help="name of the experiment [config's]")
        parser.add_argument("--output", type=Path | None, default=None, help="file that `predict` or `export` writes")
        parser.add_argument("--overwrite", type=bool, default=False, help="whether `predict` may replace its output")
        parser.add_argument(
            "--resume", type=bool, default=False, help="whether `predict` goes on where an earlier one was interrupted"
        )

    # -- configuration

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse; with a checkpoint, its model settings come first and explicit ones after them."""
        words = list(sys.argv[1:] if args is None else args) if not isinstance(args, (dict, Namespace)) else None
        checkpoint = None if words is None else _value_of("--ckpt_path", words)
        if checkpoint is None:
            super().parse_arguments(parser, args)
            checkpoint = self.config[self.config.subcommand].get("ckpt_path")
        stored = None
        if words is not None and checkpoint and str(checkpoint) not in {"best", "last", "hpc", "registry"}:
            stored = read_checkpoint(Path(checkpoint)).get(MODEL_CONFIG)
        if words is not None and stored is not None:
            settings = stored if self.model_choices else stored["init_args"]
            position = next(place for place, word in enumerate(words) if word in self.subcommands()) + 1
            words[position:position] = [f"--model={json.dumps(settings)}"]
            self._stored_model = stored["init_args"]
            self.config = parser.parse_args(words)
        elif not hasattr(self, "config"):
            super().parse_arguments(parser, args)

    def before_instantiate_classes(self) -> None:
        """Say by key where the user's settings replace the checkpoint's; refuse to score a part of the samples."""
        trainer = self.config[self.config.subcommand].get("trainer", Namespace())
        for key in ("limit_test_batches", "limit_predict_batches"):
            limit = trainer.get(key)  # 1.0 is all batches, 1 is one
            if limit is not None and not (isinstance(limit, float) and limit == 1.0):
                raise InputError(f"trainer.{key}: predictions are written for all samples; leave it out")
        if self._stored_model is None:
            return
        given = _flat(self._model_settings())
        for key, value in _flat(self._stored_model).items():
            if key in given and given[key] != value:
                text = f"the checkpoint has {value!r}, the command line {given[key]!r}; the latter is used"
                self.console.print(
                    escape(f"model.{key}: {text}"),
                    style="yellow",
                    soft_wrap=True,
                )

    def _model_settings(self) -> dict[str, Any]:
        config = self.config[self.config.subcommand]
        text = self._parser(self.config.subcommand).dump(
            config, format="json", skip_unset=False, skip_link_targets=False
        )
        settings: dict[str, Any] = json.loads(text)["model"]
        return dict(settings["init_args"]) if self.model_choices else settings

    @property
    def experiment_name(self) -> str:
        """Name given, or the stem of the last configuration file, or the use case's own name."""
        config = self.config[self.subcommand]
        if config.get("name"):
            return str(config.name)
        files = [Path(str(file)) for file in config.get("config") or [] if file is not None]
        return files[-1].stem if files else Path(self.use_case).name

    # -- objects

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Lightning's trainer, logging into a fresh version folder, or into the one that is resumed."""
        config = self.config_init[self.subcommand]
        config.name = self.config[self.subcommand].name = self.experiment_name
        command = self.subcommand
        writes_a_run = command in {"fit", "validate", "test"}
        if config.trainer.logger in (None, True):
            kwargs["logger"] = self._logger(config) if writes_a_run else False
        callbacks = [] if command != "fit" else training_callbacks(config.trainer)
        if command in {"fit", "test"}:
            callbacks.append(PredictionWriter())
        if command == "predict":
            if config.output is None:
                raise InputError("predict needs --output FILE (.nc or .zarr)")
            if config.output.exists() and not config.overwrite:
                raise InputError(
                    f"{config.output} exists already: remove it, name another output or set --overwrite true"
                )
            store = self._predictions_beside(config.output)
            if config.overwrite and not config.resume:
                shutil.rmtree(store, ignore_errors=True)  # of a `predict` that was interrupted
            callbacks.append(self._prediction_writer(store, config))
            if config.get("return_predictions") is None:
                config.return_predictions = False  # they are written, not kept in memory
        self.trainer_defaults["callbacks"] = [*callbacks, EpochLog()]
        if not writes_a_run:
            self.save_config_callback = None
        trainer = super().instantiate_trainer(**kwargs)
        assert isinstance(trainer, ExperimentTrainer)
        trainer.evaluate = self.report
        trainer.exporter = self.exporter
        trainer.output = config.output
        return trainer

    def _prediction_writer(self, store: Path, config: Namespace) -> PredictionWriter:
        """Writes predictions together with what they were made with."""
        text = self._parser(self.subcommand).dump(
            self.config[self.subcommand], format="json", skip_unset=False, skip_link_targets=False
        )
        known = {key: value for key, value in json.loads(text).items() if key in {"model", "data", "seed_everything"}}
        about = {"config": json.dumps(known, indent=1)}  # JSON is YAML, too
        checkpoint = config.get("ckpt_path")
        if checkpoint is not None and Path(checkpoint).is_file():
            with Path(checkpoint).open("rb") as file:
                about["checkpoint_sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
        settings = {**_flat(known), "checkpoint": about.get("checkpoint_sha256")}
        progress = Progress(self._progress_beside(store), settings)
        return PredictionWriter(store, attrs=about, progress=progress, resume=config.resume)

    def _logger(self, config: Namespace) -> TensorBoardLogger:
        root = experiments_folder(self.use_case)
        checkpoint = config.get("ckpt_path")
        folder = Path(checkpoint).resolve().parent.parent if checkpoint else None
        if self.subcommand == "fit" and folder and folder.name.startswith("version_"):
            # the resumed run continues where it stood, best checkpoint included
            return TensorBoardLogger(folder.parent.parent, folder.parent.name, folder.name)
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write the experiment folder {root}: {error.strerror}") from error
        if getattr(rank_zero_only, "rank", 0) or config.trainer.fast_dev_run:
            return TensorBoardLogger(root, config.name)
        self._claimed = _claim_version(root / config.name)
        return TensorBoardLogger(root, config.name, self._claimed.name)

    def _release(self) -> None:
        """Give up the run's folder where nothing was written: there is no run."""
        if self._claimed is not None:
            with contextlib.suppress(OSError):
                self._claimed.rmdir()

    def after_instantiate_classes(self) -> None:
        """Give the model the configuration that its checkpoints carry."""
        model_class = type(self.model)
        self.model.model_config = {
            "class_path": f"{model_class.__module__}.{model_class.__qualname__}",
            "init_args": self._model_settings(),
        }

    # -- after the commands

    def after_fit(self) -> None:
        """Test the best checkpoint (the last weights where none was kept) and score it."""
        if self.trainer.fast_dev_run or self.trainer.interrupted:  # type: ignore[attr-defined] # set by the connector
            return
        best = getattr(self.trainer.checkpoint_callback, "best_model_path", "") or None
        if best:
            self.trainer.test(self.model, datamodule=self.datamodule, ckpt_path=best, weights_only=True, verbose=False)
        else:
            self.trainer.test(self.model, datamodule=self.datamodule, verbose=False)
        self.after_test()

    def after_test(self) -> None:
        """Score the predictions on the first process."""
        folder = self.trainer.log_dir
        if folder is None or self.trainer.fast_dev_run or not self.trainer.is_global_zero:  # type: ignore[attr-defined]
            return
        self.report(Path(folder))

    def after_predict(self) -> None:
        """Turn the store into a NetCDF file where one was asked for."""
        if self.trainer.fast_dev_run or not self.trainer.is_global_zero:  # type: ignore[attr-defined]
            return
        output = Path(self.config_init[self.subcommand].output)
        store = self._predictions_beside(output)
        with xr.open_zarr(store, consolidated=False) as predictions:
            finished = predictions if self.product is None else self.product(predictions, output, self.datamodule)
            if output.suffix == ".nc":
                write_netcdf(finished, output)
            else:
                folder = output.with_name(f"{output.name}.partial")
                if isinstance(finished, xr.Dataset):
                    finished = finished.drop_encoding()
                finished.to_zarr(folder, mode="w", zarr_format=3, consolidated=False)
                shutil.rmtree(output, ignore_errors=True)
                folder.rename(output)
        shutil.rmtree(store)
        shutil.rmtree(self._progress_beside(store), ignore_errors=True)
        self.console.print(f"predictions: {output}", soft_wrap=True, highlight=False, markup=False)

    @staticmethod
    def _predictions_beside(output: Path) -> Path:
        """The store that predictions are in until the output is made of them."""
        if output.suffix not in {".nc", ".zarr"}:
            raise InputError(f"cannot tell the format of {output.name}: use the suffix .nc or .zarr")
        return output.with_name(f"{output.name}.predictions.zarr")

    @staticmethod
    def _progress_beside(store: Path) -> Path:
        """The folder in which complete batches are noted."""
        return store.with_name(f"{store.name}.progress")

    def report(self, folder: Path) -> Scorecard:
        """Evaluate a run, save and print its scorecard, and say where the figures are."""
        scorecard = self.evaluate(folder)
        scorecard.save(folder)
        for table in (scorecard.table(metrics=self.headline), *self.tables(scorecard)):
            if table.row_count:
                self.console.print(table)
        figures = find_figures(folder)
        self.console.print(f"scorecard: {folder / 'scorecard.csv'}", soft_wrap=True, highlight=False, markup=False)
        self.console.print(
            f"{len(figures)} figures: {folder / 'figures'}", soft_wrap=True, highlight=False, markup=False
        )
        return scorecard


def run(cli: Callable[[], ExperimentCLI]) -> ExperimentCLI:
    """Run a command line; a user's mistake ends with its message and status 2 instead of a traceback."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_NoAdvertising())
    try:
        return cli()
    except ValueError as error:
        mistake = _mistake(error)
        if mistake is None:
            raise
        Console(stderr=True).print(f"[bold red]error:[/] {escape(str(mistake))}", soft_wrap=True, highlight=False)
        raise SystemExit(2) from error
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        Console(stderr=True).print(
            f"[bold red]error:[/] {error.strerror}: {escape(str(error.filename or 'while writing results'))}. "
            "Make room, or name other folders in AI4SIM_DATA and AI4SIM_EXPERIMENTS; a fit goes on with --ckpt_path",
            soft_wrap=True,
            highlight=False,
        )
        raise SystemExit(2) from error
    finally:
        # a process that still belongs to a group when it ends may crash, and take the one that scores with it
        if distributed.is_available() and distributed.is_initialized():
            distributed.destroy_process_group()


def _claim_version(folder: Path) -> Path:
    """A new folder ``version_N`` that no other run has, not even one that begins at the same moment."""
    folder.mkdir(parents=True, exist_ok=True)
    taken = [int(path.name[8:]) for path in folder.glob("version_*") if path.name[8:].isdigit()]
    for number in count(max(taken, default=-1) + 1):
        try:
            (folder / f"version_{number}").mkdir()
        except FileExistsError:
            continue
        return folder / f"version_{number}"
    raise AssertionError("numbers do not end")


def _value_of(name: str, words: Sequence[str]) -> str | None:
    """What the command line says of an argument, None if nothing."""
    value = None
    for place, word in enumerate(words):
        head, equals, rest = word.partition("=")
        if head == name:
            value = rest if equals else next(iter(words[place + 1 :]), None)
    return None if value == "null" else value


def _mistake(error: BaseException | None) -> InputError | None:
    """The user's mistake that an error is or stems from: settings that may be absent have theirs wrapped."""
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__
    return error


class _NoAdvertising(logging.Filter):
    """Drops the hints to commercial services that lightning prints at every start."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "litlogger" not in record.getMessage() and "litmodels" not in record.getMessage()


def _flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(settings, dict) or not settings:
        return {prefix: settings}
    result: dict[str, Any] = {}
    for key, value in settings.items():
        result.update(_flat(value, f"{prefix}.{key}" if prefix else key))
    return result
