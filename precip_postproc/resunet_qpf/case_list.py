"""The forecasts of a data set: which initial and lead times there are, and which are learnt from or tested on."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ai4sim.errors import InputError
from precip_postproc.resunet_qpf.dates import require_cases, valid_times
from precip_postproc.resunet_qpf.sources import ForecastSource, GfsSource, TargetSource

logger = logging.getLogger(__name__)

SHOWN = 5
"""Missing files that are named in a message."""


@dataclass(frozen=True, eq=False)
class CaseList:
    """Forecasts in the order of initial time and lead time.

    Args:
        init: (case,) initial times, to the second.
        lead: (case,) hours.
        split: (case,) ``train``, ``validation`` or ``test``.
    """

    init: NDArray[np.datetime64]
    lead: NDArray[np.int64]
    split: NDArray[np.str_]

    def __post_init__(self) -> None:
        require_cases(self.init, self.lead)

    def __len__(self) -> int:
        return len(self.init)

    @property
    def valid_time(self) -> NDArray[np.datetime64]:
        """(case,) ends of the hours, to the second."""
        return valid_times(self.init, self.lead)

    def keep(self, chosen: NDArray[np.bool_]) -> "CaseList":
        """Those cases for which (case,) is true."""
        return CaseList(self.init[chosen], self.lead[chosen], self.split[chosen])


def find_missing(
    cases: CaseList, forecasts: ForecastSource, targets: TargetSource, coarse: GfsSource | None
) -> dict[int, str]:
    """What is missing of which cases: the first file that is not there, by the number of the case."""
    missing: dict[int, str] = {}
    hours: dict[np.datetime64, str] = {}
    for number, (init, lead, time) in enumerate(zip(cases.init, cases.lead, cases.valid_time, strict=True)):
        absent = forecasts.missing(init, int(lead))
        if not absent:
            if time not in hours:
                hours[time] = targets.missing(time)
            absent = hours[time]
        if not absent and coarse is not None and coarse.on_missing == "skip" and not coarse.path(init).exists():
            absent = str(coarse.path(init))
        if absent:
            missing[number] = absent
    return missing


def leave_out(cases: CaseList, missing: dict[int, str], largest_share: float) -> CaseList:
    """The cases of which nothing is missing.

    Args:
        cases: all.
        missing: by the number of the case, see :func:`find_missing`.
        largest_share: of the cases that may lack something.

    Raises:
        InputError: more cases than that lack something; names the first files.
    """
    if not missing:
        return cases
    names: Sequence[str] = list(dict.fromkeys(missing.values()))
    listed = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    text = f"{len(missing)} of {len(cases)} forecasts lack a file: {listed}"
    if len(missing) > largest_share * len(cases):
        raise InputError(
            f"{text}; that is more than max_missing_fraction {largest_share:g}: complete the files, or raise it"
        )
    logger.warning("%s: these are left out", text)
    kept = np.ones(len(cases), bool)
    kept[list(missing)] = False
    return cases.keep(kept)
