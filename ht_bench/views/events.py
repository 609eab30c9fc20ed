"""TensorBoard event files written whole: scalars, a custom_scalars layout, hparams. No torch."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType

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
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util.tensor_util import make_tensor_proto

Cell = str | float


class EventFile:
    """A context that writes one event file into `folder`, making the folder.

    Tags stand as they are given; torch's SummaryWriter turns their spaces into underscores.
    """

    def __init__(self, folder: Path) -> None:
        self._writer = EventFileWriter(str(folder))

    def __enter__(self) -> EventFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.close()

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
        self._writer.add_event(
            Event(step=step, wall_time=time.time(), summary=Summary(value=values))
        )
