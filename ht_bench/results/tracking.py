"""Results → TensorBoard: a run per seed, an aggregate per method, hparams, margin charts.

JSON is the source of truth; these files are a view and may be deleted. A resumed run's events
are written anew from its curve, so no step appears twice.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

EVENTS = "events.out.tfevents.*"
_COORDINATES = ("phase", "step")


class SeedWriters:
    """Live TensorBoard runs of a stack's seeds; `point` adds one point of the curve."""

    def __init__(self, folders: Sequence[Path]) -> None:
        """Open one run per folder, dropping events that an interrupted run left there."""
        from torch.utils.tensorboard import SummaryWriter

        for folder in folders:
            clear_events(folder)
        self._writers = [SummaryWriter(str(folder)) for folder in folders]

    def point(self, entry: Mapping[str, Any]) -> None:
        """Write a point whose values are lists over the stack; padding slots are left out."""
        for slot, writer in enumerate(self._writers):
            for key, values in entry.items():
                value = values if key in _COORDINATES else values[slot]
                if key != "step" and value is not None:
                    writer.add_scalar(key, value, entry["step"])

    def close(self, records: Sequence[Mapping[str, Any]] = ()) -> None:
        """Write diagnostics and hyperparameters of finished seeds, then close all runs."""
        for writer, record in zip(self._writers, records, strict=False):
            for key, step, value in columns(record["diagnostics"]):
                writer.add_scalar(key, value, step)
            hyperparameters = {"method": record["method"], "seed": record["seed"]}
            hyperparameters |= {k: _plain(v) for k, v in record["hyperparameters"].items()}
            judged = "return" if "reference" in record else "accuracy"
            curve = record["curve"]["eval/return" if judged == "return" else "test/accuracy"]
            final = [value for value in curve if value is not None][-1]
            writer.add_hparams(hyperparameters, {f"final/{judged}": final}, run_name=".")
        for writer in self._writers:
            writer.close()


def clear_events(folder: Path) -> None:
    """Delete the event files of one run folder."""
    for file in folder.glob(EVENTS):
        file.unlink()


def columns(table: Mapping[str, Sequence[Any]]) -> Iterable[tuple[str, int, float]]:
    """Return (key, step, value) of a record's curve or diagnostics, without missing values."""
    steps = table.get("step", [])
    for key, values in table.items():
        if key in _COORDINATES:
            continue
        for step, value in zip(steps, values, strict=True):
            if value is not None:
                yield key, step, value


def write_aggregate(folder: Path, members: Sequence[Mapping[str, Any]]) -> None:
    """Write one method's runs on one task as a run of means over seeds, replacing `folder`.

    Each key becomes key/mean, key/lower and key/upper: the mean ± 1.96 standard errors, which the
    `custom_scalars` layout shows as a margin.
    """
    from torch.utils.tensorboard import SummaryWriter

    shutil.rmtree(folder, ignore_errors=True)
    writer = SummaryWriter(str(folder))
    keys = _add_means(writer, members)
    writer.add_custom_scalars(_layout(keys))
    writer.close()


def _add_means(writer: Any, members: Sequence[Mapping[str, Any]]) -> list[str]:
    values: dict[tuple[str, int], list[float]] = {}
    for record in members:
        for table in (record["curve"], record["diagnostics"]):
            for key, step, value in columns(table):
                values.setdefault((key, step), []).append(value)
    for (key, step), found in sorted(values.items(), key=lambda item: item[0][1]):
        mean = float(np.mean(found))
        error = float(np.std(found, ddof=1)) / len(found) ** 0.5 if len(found) > 1 else 0.0
        writer.add_scalar(f"{key}/mean", mean, step)
        writer.add_scalar(f"{key}/lower", mean - 1.96 * error, step)
        writer.add_scalar(f"{key}/upper", mean + 1.96 * error, step)
    return sorted({key for key, _ in values})


def _layout(keys: Sequence[str]) -> dict[str, Any]:
    layout: dict[str, Any] = {}
    for key in keys:
        group, _, name = key.partition("/")
        tags = [f"{key}/mean", f"{key}/lower", f"{key}/upper"]
        layout.setdefault(group, {})[name] = ["Margin", tags]
    return layout


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else str(value)
