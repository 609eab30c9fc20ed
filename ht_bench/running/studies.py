"""Searches kept by Optuna in an SQLite file: which configurations were tried, which are next."""

from __future__ import annotations

import contextlib
import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ht_bench.errors import UsageError, telling
from ht_bench.methods.space import Range, Space, combinations, is_grid

if TYPE_CHECKING:
    import optuna

SEED = 0
"""Of every draw of a search."""
TOGETHER = 4
"""Trials that are drawn from ranges at a time, whatever the machine: they train side by side."""
FILE = "tuning.db"


@dataclass(frozen=True)
class Asked:
    """One configuration to try; number: its trial's in the study."""

    number: int
    hyperparameters: Mapping[str, Any]


@contextlib.contextmanager
def storage(out: Path) -> Iterator[optuna.storages.BaseStorage]:
    """Open `out`/tuning.db, made if it is not there; raises UsageError without Optuna."""
    optuna = _optuna()
    url = f"sqlite:///{(out / FILE).resolve()}"
    with _readable(out / FILE):
        kept = optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 60}})
    try:
        yield kept
    finally:
        kept.remove_session()
        kept.engine.dispose()


def _readable(file: Path) -> contextlib.AbstractContextManager[None]:
    """Turn whatever Optuna and SQLite raise on a damaged file into a sentence."""
    return telling(
        f"The searches in {file} cannot be read",
        "; unless another search is at work on it, restore the file, or delete it to search anew",
    )


def version() -> str:
    """Return Optuna's version."""
    return str(_optuna().__version__)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise UsageError(
            f"Optuna cannot be imported ({error}); pip install 'ht-bench[tune]'."
        ) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


class Study:
    """One search: at most `trials` configurations of a space, the same ones whenever it goes on.

    A grid of no more combinations is tried whole; of a larger one that many are drawn without
    replacement; ranges are searched by TPE (`TOGETHER` at a time, from what the earlier ones gave).

    Args:
        kept: the open storage.
        title: what is searched, in words; with `identity` it makes the study's name.
        identity: everything that decides what a configuration's value is.
        space: what is searched.
        trials: how many configurations may be tried.

    """

    def __init__(
        self,
        kept: optuna.storages.BaseStorage,
        title: str,
        identity: Mapping[str, Any],
        space: Space,
        trials: int,
    ) -> None:
        optuna = _optuna()
        self._kept, self.space, self.trials = kept, space, trials
        database: Any = kept
        self._file = Path(str(database.engine.url.database))
        facts = {**identity, "space": _plain(space), "trials": trials}
        text = json.dumps(facts, sort_keys=True, default=repr)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        # Without pruning; the sampler is set anew for each trial.
        with _readable(self._file):
            self._study = optuna.create_study(
                storage=kept,
                study_name=f"{title} [{digest}]",
                direction="maximize",
                sampler=optuna.samplers.RandomSampler(SEED),
                load_if_exists=True,
            )
            if not self._study.user_attrs:
                for key, value in facts.items():
                    self._study.set_user_attr(key, value)
        self._distributions = {key: _distribution(values) for key, values in space.items()}
        self._grid = _drawn(combinations(space), trials) if is_grid(space) else None

    @property
    def sampler(self) -> str:
        """How configurations are chosen: "grid", "random subset of a grid" or "TPE"."""
        if self._grid is None:
            return "TPE"
        size = len(combinations(self.space))
        return "grid" if size <= self.trials else "random subset of a grid"

    def ask(self) -> list[Asked]:
        """Return every configuration asked for so far, and the next if all of them have values.

        What was asked for before an interruption is there again; nothing new where all are tried.
        Raises UsageError for a damaged file.
        """
        with _readable(self._file):
            return self._asked()

    def _asked(self) -> list[Asked]:
        trials = self._study.get_trials(deepcopy=False)
        count, are_told = len(trials), all(trial.state.is_finished() for trial in trials)
        for _ in range(sum(trial.state.name == "WAITING" for trial in trials)):
            self._study.ask(self._distributions)  # a kill came between the two calls below
        if self._grid is not None:
            for configuration in self._grid[count:]:
                self._study.enqueue_trial(_encoded(configuration))
                self._study.ask(self._distributions)
        else:
            begun = -(-count // TOGETHER) * TOGETHER
            self._draw(count, min(begun + TOGETHER * are_told, self.trials))
        return [
            Asked(trial.number, self._values(trial.params))
            for trial in self._study.get_trials(deepcopy=False)
        ]

    def _draw(self, first: int, end: int) -> None:
        samplers = _optuna().samplers
        for number in range(first, end):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # constant_liar is called experimental
                # A seed of its own for each trial: an interrupted search draws the same ones.
                self._study.sampler = samplers.TPESampler(
                    n_startup_trials=TOGETHER, constant_liar=True, seed=SEED + number
                )
            self._study.ask(self._distributions)

    def tell(self, number: int, value: float, facts: Mapping[str, Any]) -> None:
        """Keep a trial's value, and facts to show beside it; a trial told before stays as it is."""
        with _readable(self._file):
            if self._study.get_trials(deepcopy=False)[number].state.is_finished():
                return
            study = self._kept.get_study_id_from_name(self._study.study_name)
            trial = self._kept.get_trial_id_from_study_id_trial_number(study, number)
            for key, fact in facts.items():
                self._kept.set_trial_user_attr(trial, key, fact)
            self._study.tell(number, value)

    def _values(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        return {key: _decoded(parameters[key], self.space[key]) for key in self.space}


def _drawn(grid: Sequence[dict[str, Any]], trials: int) -> list[dict[str, Any]]:
    if len(grid) <= trials:
        return list(grid)
    chosen = np.random.default_rng(SEED).permutation(len(grid))[:trials]
    return [grid[index] for index in sorted(chosen.tolist())]


def _distribution(values: Sequence[Any] | Range) -> Any:
    distributions = _optuna().distributions
    if isinstance(values, Range):
        kind = "IntDistribution" if values.is_whole else "FloatDistribution"
        return getattr(distributions, kind)(values.low, values.high, log=values.log)
    return distributions.CategoricalDistribution([_scalar(value) for value in values])


def _encoded(configuration: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _scalar(value) for key, value in configuration.items()}


def _scalar(value: Any) -> Any:
    """Optuna keeps scalars alone."""
    return json.dumps(value) if isinstance(value, list | tuple | Mapping) else value


def _decoded(value: Any, values: Sequence[Any] | Range) -> Any:
    if isinstance(values, Range):
        # Three digits are what a search can tell apart, and what a recipe can be read with.
        if values.is_whole:
            return value
        return min(max(float(f"{value:.3g}"), values.low), values.high)
    return next(each for each in values if _scalar(each) == value)


def _plain(space: Space) -> dict[str, Any]:
    return {
        key: vars(values) if isinstance(values, Range) else list(values)
        for key, values in space.items()
    }
