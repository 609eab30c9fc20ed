"""Event files of TensorBoard, and a stack's curves written to them while it trains. No torch.

JSON is the source of truth; these files are a view and may be deleted. A resumed run's events
are written anew from its curve, so no step appears twice.
"""

from __future__ import annotations

import itertools
import math
import os
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.custom_scalar import metadata as custom_scalars
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams import metadata as hparams
from tensorboard.plugins.hparams.api_pb2 import STATUS_SUCCESS, Experiment
from tensorboard.plugins.hparams.plugin_data_pb2 import (
    HParamsPluginData,
    SessionEndInfo,
    SessionStartInfo,
)
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util.tensor_util import make_tensor_proto

EVENTS = "events.out.tfevents.*"
COORDINATES = ("phase", "step")
Cell = str | float
_NUMBERS = itertools.count()


class EventFile:
    """One event file in `folder`, which is made; close it when all is written.

    Tags stand as they are given; torch's SummaryWriter turns their spaces into underscores.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        names = time.time_ns(), socket.gethostname(), os.getpid(), next(_NUMBERS)
        path = folder / f"events.out.tfevents.{'.'.join(map(str, names))}"
        # TensorBoard's own EventFileWriter has a thread that dies with a traceback on a full disk.
        self._file = path.open("wb")
        self._records = RecordWriter(self._file)
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def close(self) -> None:
        """Close the file; may be called again."""
        self._file.close()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write one point of several tags; the steps of a tag must rise from call to call."""
        self._add(step, [Summary.Value(tag=tag, simple_value=v) for tag, v in values.items()])

    def layout(self, layout: Layout) -> None:
        """Write what the tab CUSTOM SCALARS shows."""
        value = Summary.Value(
            tag=custom_scalars.CONFIG_SUMMARY_TAG,
            metadata=custom_scalars.create_summary_metadata(),
            tensor=make_tensor_proto(layout.SerializeToString(), dtype=DT_STRING),
        )
        self._add(0, [value])

    def experiment(self, columns: Experiment) -> None:
        """Write the columns of HPARAMS; of all the runs it shows, TensorBoard asks only one."""
        self._hparams(hparams.EXPERIMENT_TAG, HParamsPluginData(experiment=columns))

    def session(self, cells: Mapping[str, Cell], name: str = "") -> None:
        """Write a row of HPARAMS: this run's hyperparameters. name: by default the run's."""
        start = SessionStartInfo(group_name=name)
        for key, value in cells.items():
            if isinstance(value, str):
                start.hparams[key].string_value = value
            else:
                start.hparams[key].number_value = value
        end = SessionEndInfo(status=STATUS_SUCCESS)
        self._hparams(hparams.SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=start))
        self._hparams(hparams.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=end))

    def _hparams(self, tag: str, data: HParamsPluginData) -> None:
        metadata = hparams.create_summary_metadata(data)
        self._add(0, [Summary.Value(tag=tag, metadata=metadata, tensor=hparams.NULL_TENSOR)])

    def _add(self, step: int, values: Iterable[Summary.Value]) -> None:
        self._write(Event(step=step, wall_time=time.time(), summary=Summary(value=values)))

    def _write(self, event: Event) -> None:
        self._records.write(event.SerializeToString())
        self._records.flush()


class SeedWriters:
    """Live TensorBoard runs of a stack's seeds; `point` adds one point of the curve."""

    def __init__(self, folders: Sequence[Path]) -> None:
        """Open one run per folder, dropping events that an interrupted run left there."""
        for folder in folders:
            for file in folder.glob(EVENTS):
                file.unlink()
        self._folders, self._files = folders, [EventFile(folder) for folder in folders]

    def point(self, entry: Mapping[str, Any]) -> None:
        """Write a point whose values are lists over the stack; padding slots are left out."""
        for slot, events in enumerate(self._files):
            values = {k: v if k in COORDINATES else v[slot] for k, v in entry.items()}
            step = values.pop("step")
            events.scalars(step, {k: v for k, v in values.items() if v is not None})

    def close(self, records: Sequence[Mapping[str, Any]] = ()) -> None:
        """Write diagnostics and hyperparameters of finished seeds, then close all runs."""
        for events, record in zip(self._files, records, strict=False):
            table = record["diagnostics"]
            for index, step in enumerate(table.get("step", ())):
                row = {k: v[index] for k, v in table.items() if k not in COORDINATES}
                events.scalars(step, {k: v for k, v in row.items() if v is not None})
        for events in self._files:
            events.close()
        for folder, record in zip(self._folders, records, strict=False):
            _write_hyperparameters(folder, record)


def _write_hyperparameters(folder: Path, record: Mapping[str, Any]) -> None:
    """Write a row of HPARAMS, and no columns: TensorBoard gathers them from the rows of all runs.

    `SummaryWriter.add_hparams` adds the columns of its own run, and the table then shows those
    of any one run alone.
    """
    cells = {k: plain(v) for k, v in record["hyperparameters"].items()}
    key = "eval/return" if "reference" in record else "test/accuracy"
    final = [value for value in record["curve"][key] if value is not None][-1]
    with closing(EventFile(folder)) as events:
        events.session({"method": record["method"], "seed": record["seed"]} | cells)
        events.scalars(0, {f"final/{key.partition('/')[2]}": final})


def plain(value: Any) -> Cell:
    """Return a hyperparameter as a cell of HPARAMS: a finite number, or text."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and math.isfinite(value) else str(value)
