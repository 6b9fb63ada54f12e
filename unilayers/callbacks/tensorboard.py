"""A callback that writes what TensorBoard shows, with the ``tensorboard`` package alone: no TensorFlow."""

from __future__ import annotations

import itertools
import os
import re
import socket
import struct
import time
import warnings
import zlib
from os import PathLike
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from unilayers.callbacks.base import Callback
from unilayers.callbacks.files import Every
from unilayers.errors import UnilayersError
from unilayers.graph import Graph, schedule

# ---- the file -----------------------------------------------------------------


def _tensorboard() -> Any:
    """The package's messages and its checksum. Its writer is not used: that loads TensorFlow where it is installed."""
    try:
        from tensorboard.compat.proto import event_pb2, graph_pb2, summary_pb2, tensor_pb2
        from tensorboard.compat.proto import tensor_shape_pb2, types_pb2  # isort: skip
        from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
    except ModuleNotFoundError as error:
        raise UnilayersError(
            f"needs the package {error.name!r}", where="TensorBoard",
            fix="Install it with: pip install 'unilayers[tensorboard]'",
        ) from None  # fmt: skip
    return SimpleNamespace(
        Event=event_pb2.Event, GraphDef=graph_pb2.GraphDef,
        Summary=summary_pb2.Summary, Metadata=summary_pb2.SummaryMetadata, Tensor=tensor_pb2.TensorProto,
        Shape=tensor_shape_pb2.TensorShapeProto, types=types_pb2, checksum=masked_crc32c,
    )  # fmt: skip


class EventFile:
    """A file of events in a folder, which TensorBoard finds by its name.

    Args:
        folder: Is made if it is not there.
    """

    _numbers = itertools.count()

    def __init__(self, folder: Path) -> None:
        self._proto = _tensorboard()
        folder.mkdir(parents=True, exist_ok=True)
        number = next(self._numbers)
        self.path = folder / f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}.{number}.v2"
        self._file = self.path.open("xb")
        self.event(file_version="brain.Event:2")

    def event(self, **fields: Any) -> None:
        """Write an event: a record is its length and its bytes, each with a checksum behind it."""
        data = self._proto.Event(wall_time=time.time(), **fields).SerializeToString()
        length = struct.pack("<Q", len(data))
        for part in (length, data):
            self._file.write(part + struct.pack("<I", self._proto.checksum(part)))

    def summary(self, kind: str, tag: str, step: int, tensor: Any) -> None:
        """Write a value for the plugin that shows values of its kind."""
        p = self._proto
        metadata = p.Metadata(plugin_data=p.Metadata.PluginData(plugin_name=kind))
        value = p.Summary.Value(tag=tag, metadata=metadata, tensor=tensor)
        self.event(step=step, summary=p.Summary(value=[value]))

    def scalar(self, tag: str, step: int, value: float) -> None:
        """Write a number."""
        self.summary("scalars", tag, step, self._proto.Tensor(dtype=self._proto.types.DT_FLOAT, float_val=[value]))

    def histogram(self, tag: str, step: int, values: np.ndarray, buckets: int = 30) -> None:
        """Write how many values lie in each of some intervals: rows of left edge, right edge and count."""
        p, values = self._proto, values.astype("float64").ravel()
        values = values[np.isfinite(values)]
        if values.size and values.min() == values.max():
            rows = np.array([[values[0] - 0.5, values[0] + 0.5, values.size]])
        elif values.size:
            counts, edges = np.histogram(values, buckets)
            rows = np.stack([edges[:-1], edges[1:], counts], axis=1)
        else:
            rows = np.zeros((0, 3))
        shape = p.Shape(dim=[p.Shape.Dim(size=n) for n in rows.shape])
        tensor = p.Tensor(dtype=p.types.DT_DOUBLE, tensor_shape=shape, tensor_content=rows.astype("<f8").tobytes())
        self.summary("histograms", tag, step, tensor)

    def images(self, tag: str, step: int, images: np.ndarray, most: int = 3) -> None:
        """Write pictures of floats, the smallest of all black and the largest white.

        Args:
            tag: The name.
            step: The time.
            images: ``(images, height, width)``.
            most: How many of them are written.
        """
        p = self._proto
        finite = images[np.isfinite(images)]
        low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
        shades = np.nan_to_num((images[:most].astype("float64") - low) / ((high - low) or 1.0), posinf=1.0, neginf=0.0)
        texts = [str(n).encode() for n in reversed(images.shape[1:])]
        pictures = [png(picture) for picture in np.rint(255 * shades).astype("uint8")]
        shape = p.Shape(dim=[p.Shape.Dim(size=len(texts) + len(pictures))])
        self.summary(
            "images", tag, step, p.Tensor(dtype=p.types.DT_STRING, tensor_shape=shape, string_val=[*texts, *pictures])
        )

    def graph(self, graph: Graph) -> None:
        """Write what leads to the outputs of a graph; the layers are groups, one in another."""
        p = self._proto
        made = p.GraphDef()
        names: dict[Any, str] = {}
        taken: dict[str, int] = {}
        for node in schedule((), graph.outputs.values()):
            name = node.attrs.get("name") or "/".join(filter(None, (node.scope or node.part, node.op)))
            name = re.sub(r"[^A-Za-z0-9_./>-]", "_", name)
            taken[name] = number = taken.get(name, -1) + 1
            names[node] = name = f"{name}_{number}" if number else name
            inputs = [names[v.node] + (f":{v.index}" if v.index else "") for v in node.inputs]
            sizes = [[d if isinstance(d, int) else -1 for d in v.shape] for v in node.outputs]
            shapes = [p.Shape(dim=[p.Shape.Dim(size=d) for d in dims]) for dims in sizes]
            made.node.add(name=name, op=node.op, input=inputs).attr["_output_shapes"].list.shape.extend(shapes)
        self.event(graph_def=made.SerializeToString())

    def flush(self) -> None:
        """Bring what was written to where others can read it."""
        self._file.flush()

    def close(self) -> None:
        """Finish the file."""
        self._file.close()


def png(picture: np.ndarray) -> bytes:
    """A picture of bytes, ``(height, width)``, in shades of grey, as a PNG file."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = picture.shape
    rows = np.concatenate([np.zeros((height, 1), "uint8"), picture], axis=1)  # each row begins with its filter: none
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows.tobytes()))
        + chunk(b"IEND", b"")
    )


def pictures(weight: np.ndarray) -> np.ndarray | None:
    """A weight as pictures ``(images, height, width)``: a row for a vector, the wider side of a matrix across, one for
    each last index of three axes; None for other shapes. Axes of size 1 do not count."""
    weight = np.squeeze(weight)
    if weight.ndim == 3:
        return weight.transpose(2, 0, 1)
    if weight.ndim == 2:
        return (weight.T if weight.shape[0] > weight.shape[1] else weight)[None]
    return weight[None, None] if weight.ndim == 1 else None


# ---- the callback -------------------------------------------------------------


class TensorBoard(Callback):
    """Writes what TensorBoard shows: ``tensorboard --logdir logs``. Needs the package ``tensorboard``, not TensorFlow.

    Values of training go to the folder ``train``, those of validation to ``validation``, with Keras's names:
    ``epoch_loss`` and ``epoch_learning_rate`` per epoch, ``batch_loss`` per batch, and for each evaluation
    ``evaluation_loss_vs_iterations``.

    Args:
        log_dir: A folder for this run.
        histogram_freq: Write histograms of the weights every so many epochs; 0: never.
        write_graph: Whether to write the graph of the forward pass and the loss, after the first batch.
        write_images: Whether to write the weights as pictures, too, where histograms are written: the smallest number
            black, the largest white.
        write_steps_per_second: Whether to write how many steps are made in a second.
        update_freq: ``"epoch"``: values per epoch only; ``"batch"`` or a number: also after each batch, or each so
            many; reading them makes each of these batches wait for the device.
        profile_batch: Profiling is not supported; 0.
        embeddings_freq: The projector of embeddings is not supported; 0.
        embeddings_metadata: Not supported; None.

    Raises:
        UnilayersError: if something is asked for that is not supported, or the package is not installed.
    """

    state_names = ("_batches", "_every.steps")

    def __init__(
        self,
        log_dir: str | PathLike[str] = "logs",
        histogram_freq: int = 0,
        write_graph: bool = True,
        write_images: bool = False,
        write_steps_per_second: bool = False,
        update_freq: str | int = "epoch",
        profile_batch: Any = 0,
        embeddings_freq: int = 0,
        embeddings_metadata: Any = None,
    ) -> None:
        unsupported = {
            "profile_batch": (profile_batch, "Profile with the tools of the backend"),
            "embeddings_freq": (embeddings_freq, "Save the weights and load them into the projector"),
            "embeddings_metadata": (embeddings_metadata, "Save the weights and load them into the projector"),
        }
        for name, (given, fix) in unsupported.items():
            if given:
                raise UnilayersError("not supported", where=f"TensorBoard.{name}", received=repr(given), fix=fix)
        _tensorboard()  # says now if it is not there
        self.log_dir, self.histogram_freq = Path(log_dir), histogram_freq
        self.write_graph, self.write_images = write_graph, write_images
        self.write_steps_per_second = write_steps_per_second
        self.update_freq = 1 if update_freq == "batch" else update_freq
        self._every = Every(self.update_freq, "TensorBoard.update_freq")
        self._files: dict[str, EventFile] = {}

    def get_state(self) -> dict[str, Any]:
        for file in self._files.values():  # a training that goes on from here writes what comes after it
            file.flush()
        return super().get_state()

    def _file(self, name: str) -> EventFile:
        if name not in self._files:
            self._files[name] = EventFile(self.log_dir / name)
        return self._files[name]

    def set_model(self, model: Any) -> None:
        super().set_model(model)
        self._close()
        self._graph_due = self.write_graph

    def on_train_begin(self, logs: Any = None) -> None:
        self._batches = 0
        self._every = Every(self.update_freq, "TensorBoard.update_freq")

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch_batches, self._epoch_start = self._batches, time.perf_counter()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._batch_start = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._batches += 1
        if self._graph_due:
            self._graph_due = False
            self._write_graph()
        if self._every.due():
            file = self._file("train")
            if self.write_steps_per_second:
                file.scalar("batch_steps_per_second", self._batches, 1 / (time.perf_counter() - self._batch_start))
            for name in logs or ():
                if name != "batch_loss":  # which Keras does not have: its loss is the running mean, and has this tag
                    self._scalar(file, f"batch_{name}", self._batches, logs[name])

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        found = dict(logs or {})
        validation = {name.removeprefix("val_"): found.pop(name) for name in [*found] if name.startswith("val_")}
        if self.model.optimizer is not None:
            found["learning_rate"] = float(self.model.optimizer.learning_rate)
        if self.write_steps_per_second:
            seconds = time.perf_counter() - self._epoch_start
            found["steps_per_second"] = (self._batches - self._epoch_batches) / seconds
        for folder, values in (("train", found), ("validation", validation)):
            for name, value in values.items():
                self._scalar(self._file(folder), f"epoch_{name}", epoch, value)
        if self.histogram_freq and epoch % self.histogram_freq == 0:
            self._write_weights(epoch)
        for file in self._files.values():
            file.flush()

    def on_test_end(self, logs: Any = None) -> None:
        if self.model.optimizer is None:
            return
        file = self._file("validation")
        for name, value in (logs or {}).items():
            self._scalar(file, f"evaluation_{name}_vs_iterations", int(self.model.optimizer.iterations), value)
        file.flush()

    def on_train_end(self, logs: Any = None) -> None:
        self._close()

    def _scalar(self, file: EventFile, tag: str, step: int, value: Any) -> None:
        """A number; of a metric with several values each, numbered."""
        several = np.asarray(value, "float64")
        for i, one in enumerate(several.ravel()):
            file.scalar(tag if several.ndim == 0 else f"{tag}/{i}", step, float(one))

    def _write_weights(self, epoch: int) -> None:
        file = self._file("train")
        for weight in self.model.weights:
            array = weight.numpy().astype("float64")
            file.histogram(f"{weight.path}/histogram", epoch, array)
            shown = pictures(array) if self.write_images else None
            if shown is not None:
                file.images(f"{weight.path}/image", epoch, shown)

    def _write_graph(self) -> None:
        try:
            graph = self.model._running[0].traced().graph
        except Exception as error:  # whatever the model's own Python raises where it cannot be traced
            warnings.warn(f"TensorBoard: no graph is written, as the model cannot be traced: {error}", stacklevel=2)
            return
        self._file("train").graph(graph)

    def _close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files = {}
