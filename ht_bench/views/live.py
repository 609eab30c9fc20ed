"""A run's curve → TensorBoard while it trains, its hyperparameters when it has ended.

JSON is the source of truth; these files are a view and may be deleted. A resumed run's events
are written anew from its curve, so no step appears twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

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
            _write_hyperparameters(Path(writer.log_dir), record)
        for writer in self._writers:
            writer.close()


def _write_hyperparameters(folder: Path, record: Mapping[str, Any]) -> None:
    """Write a row of HPARAMS, and no columns: TensorBoard gathers them from the rows of all runs.

    `SummaryWriter.add_hparams` adds the columns of its own run, and the table then shows those
    of any one run alone.
    """
    from ht_bench.views.events import EventFile

    cells = {k: _plain(v) for k, v in record["hyperparameters"].items()}
    judged = "return" if "reference" in record else "accuracy"
    curve = record["curve"]["eval/return" if judged == "return" else "test/accuracy"]
    final = [value for value in curve if value is not None][-1]
    with EventFile(folder) as events:
        events.session({"method": record["method"], "seed": record["seed"]} | cells)
        events.scalars(0, {f"final/{judged}": final})


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


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else str(value)
