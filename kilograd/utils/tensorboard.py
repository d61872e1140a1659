"""TensorBoard's event files, with the methods of ``torch.utils.tensorboard.SummaryWriter``.

The messages are tensorboardX's; the file is written here, in order and at once, by the calling thread. So
``flush()`` means that what was added is on the disk, and nothing is left to a thread in the background.
"""

from __future__ import annotations

import io
import itertools
import math
import os
import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any

import numpy as np

from kilograd.tensor import Tensor

IMAGES = ("CHW", "HWC", "HW", "WH", "NCHW", "NHWC")
COUNTER = itertools.count()  # two files made in one second have different names


class EventFile:
    """One file of events: records are written in full, one after the other."""

    def __init__(
        self, folder: str, suffix: str, max_queue: int, flush_secs: float, purge_step: int | None
    ) -> None:
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.record_writer import RecordWriter

        os.makedirs(folder, exist_ok=True)
        name = (
            f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}."
            f"{next(COUNTER)}{suffix}"
        )
        self.max_queue, self.flush_secs = max_queue, flush_secs
        self.waiting, self.flushed = 0, time.monotonic()
        self.lock = threading.Lock()
        self.records = RecordWriter(os.path.join(folder, name))
        self.write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        if purge_step is not None:  # what an earlier file says about later steps is void
            start = SessionLog(status=SessionLog.START)
            self.write(Event(wall_time=time.time(), step=purge_step, session_log=start))

    def write(self, event: Any) -> None:
        with self.lock:
            self.records.write(event.SerializeToString())
            self.waiting += 1
            late = time.monotonic() - self.flushed > self.flush_secs
        if late or self.waiting > self.max_queue:
            self.flush()

    def flush(self) -> None:
        with self.lock:
            self.records.flush()
            self.waiting, self.flushed = 0, time.monotonic()

    def close(self) -> None:
        self.flush()
        self.records.close()


class SummaryWriter:
    """Write scalars, histograms, images, … to a folder that ``tensorboard --logdir`` shows.

    Wherever a number or an array is expected, a Tensor, NumPy array, Python number or list will do, of any dtype
    and with or without ``requires_grad``. ``global_step`` is the place on TensorBoard's x-axis, ``walltime`` the
    seconds since 1970 (now, by default).

    Args:
        log_dir: the folder; by default ``runs/<date>_<host><comment>``.
        comment: the end of that default.
        purge_step: on resuming, the step from which on TensorBoard forgets what earlier files say.
        max_queue: the file is flushed to disk after so many events, …
        flush_secs: … and with the first event after so many seconds.
        filename_suffix: the end of the file's name.

    Raises:
        ImportError: tensorboardX is not installed.

    Example:
        >>> import kilograd as kg, os, tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> with SummaryWriter(folder.name) as writer:
        ...     for step in range(3):
        ...         writer.add_scalar("loss", kg.tensor(1.0 / (step + 1)), step)
        >>> os.listdir(folder.name)[0].startswith("events.out.tfevents.")
        True
        >>> folder.cleanup()
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str] | None = None,
        comment: str = "",
        purge_step: int | None = None,
        max_queue: int = 10,
        flush_secs: float = 120,
        filename_suffix: str = "",
    ) -> None:
        try:
            import tensorboardX  # noqa: F401
        except ImportError as e:
            raise ImportError(
                "SummaryWriter needs tensorboardX: pip install 'kilograd[tensorboard]'"
            ) from e
        if log_dir is None:
            now = datetime.now().strftime("%b%d_%H-%M-%S")
            log_dir = os.path.join("runs", f"{now}_{socket.gethostname()}{comment}")
        self.log_dir = os.fspath(log_dir)
        self.purge_step = purge_step
        self.max_queue, self.flush_secs = max_queue, flush_secs
        self.filename_suffix = filename_suffix
        self._files: dict[str, EventFile] = {}
        self._file(self.log_dir)

    def get_logdir(self) -> str:
        """The folder."""
        return self.log_dir

    # --- numbers ----------------------------------------------------------------------------

    def add_scalar(
        self, tag: str, scalar_value: Any, global_step: int | None = None,
        walltime: float | None = None, new_style: bool = False, double_precision: bool = False,
    ) -> None:  # fmt: skip
        """Add a number to the curve ``tag``.

        Args:
            tag: the curve; slashes make groups.
            scalar_value: a number, or anything with one element.
            global_step: the step.
            walltime: the time.
            new_style: write TensorBoard's newer form, a tensor, …
            double_precision: … with 64 bits instead of 32.

        Raises:
            ValueError: more or fewer than one element.
        """
        self._add(_scalar(tag, scalar_value, new_style, double_precision), global_step, walltime)

    def add_scalars(
        self, main_tag: str, tag_scalar_dict: Mapping[str, Any], global_step: int | None = None,
        walltime: float | None = None,
    ) -> None:  # fmt: skip
        """Add a number to each of several curves in one picture.

        Each curve is a run of its own, in the folder ``<log_dir>/<main_tag>_<name>``, as PyTorch does it.
        """
        walltime = time.time() if walltime is None else walltime
        for tag, value in tag_scalar_dict.items():
            folder = os.path.join(self.log_dir, f"{main_tag.replace('/', '_')}_{tag}")
            self._add(_scalar(main_tag, value), global_step, walltime, folder)

    def add_histogram(
        self, tag: str, values: Any, global_step: int | None = None,
        bins: str | int | Sequence[float] = "tensorflow", walltime: float | None = None,
        max_bins: int | None = None,
    ) -> None:  # fmt: skip
        """Add the distribution of some numbers.

        Args:
            tag: the histogram.
            values: numbers of any shape. NaN and infinity are left out, with a warning that counts them.
            global_step: the step.
            bins: ``"tensorflow"`` (each 10% wider than the one before it, on both sides of zero), or what
                ``numpy.histogram`` takes.
            walltime: the time.
            max_bins: neighbouring bins are put together until there are about so many.

        Raises:
            ValueError: no values.
        """
        from tensorboardX.summary import histogram

        array = _array(values, "add_histogram").reshape(-1).astype(np.float64)
        if not array.size:
            raise ValueError(f"add_histogram: {tag!r} has no values")
        finite = array[np.isfinite(array)]
        if len(finite) < len(array):
            warnings.warn(
                f"add_histogram: {len(array) - len(finite):,} of {len(array):,} values of {tag!r} are NaN or "
                "infinite, and left out",
                RuntimeWarning,
                stacklevel=2,
            )
        if finite.size:
            edges = _tensorflow_edges() if isinstance(bins, str) and bins == "tensorflow" else bins
            summary = histogram(tag, finite, edges, max_bins)
            summary.value[0].tag = tag  # tensorboardX replaces what was once forbidden in tags
            self._add(summary, global_step, walltime)

    # --- pictures ---------------------------------------------------------------------------

    def add_image(
        self, tag: str, img_tensor: Any, global_step: int | None = None,
        walltime: float | None = None, dataformats: str = "CHW",
    ) -> None:  # fmt: skip
        """Add an image, or a grid of images.

        Args:
            tag: the image.
            img_tensor: integers from 0 to 255, or floats from 0 to 1 (values beyond are clipped, NaN is black);
                1, 3 or 4 channels.
            global_step: the step.
            walltime: the time.
            dataformats: what its dimensions are: CHW, HWC, HW, WH, or NCHW, NHWC for a grid.

        Raises:
            ValueError: a shape that does not fit ``dataformats``, or integers beyond 0 … 255.
            ImportError: Pillow is not installed.
        """
        from tensorboardX.summary import image

        order = dataformats.upper()
        if order not in IMAGES:
            raise ValueError(f"add_image: dataformats={dataformats!r}; it is one of {IMAGES}")
        array = _bytes(img_tensor)
        channels = array.shape[order.index("C")] if array.ndim == len(order) and "C" in order else 1
        if array.ndim != len(order) or channels not in (1, 3, 4) or not array.size:
            raise ValueError(
                f"add_image: the shape {array.shape} does not fit dataformats={dataformats!r} with 1, 3 or 4 "
                "channels (C)"
            )
        try:
            summary = image(tag, array, dataformats=order)
        except ImportError as e:
            raise ImportError("add_image needs Pillow: pip install 'kilograd[tensorboard]'") from e
        summary.value[0].tag = tag
        self._add(summary, global_step, walltime)

    def add_images(
        self, tag: str, img_tensor: Any, global_step: int | None = None,
        walltime: float | None = None, dataformats: str = "NCHW",
    ) -> None:  # fmt: skip
        """Add a batch of images as a grid; see :meth:`add_image`."""
        self.add_image(tag, img_tensor, global_step, walltime, dataformats)

    def add_figure(
        self, tag: str, figure: Any, global_step: int | None = None, close: bool = True,
        walltime: float | None = None,
    ) -> None:  # fmt: skip
        """Add a Matplotlib figure, a picture of ``kilograd.viz``, or a list of them of one size.

        Args:
            tag: the image.
            figure: the figure, or what has it as ``.figure``.
            global_step: the step.
            close: whether pyplot forgets the figure.
            walltime: the time.
        """
        figures = list(figure) if isinstance(figure, (list, tuple)) else [figure]
        figures = [getattr(f, "figure", f) for f in figures]
        pixels = [_pixels(f) for f in figures]
        if len({p.shape for p in pixels}) != 1:
            raise ValueError(
                f"add_figure: figures of one size are expected, got {[p.shape for p in pixels]}"
            )
        if len(pixels) == 1:
            self.add_image(tag, pixels[0], global_step, walltime, "HWC")
        else:
            self.add_image(tag, np.stack(pixels), global_step, walltime, "NHWC")
        pyplot = sys.modules.get("matplotlib.pyplot")
        if close and pyplot is not None:
            for f in figures:
                pyplot.close(f)

    # --- text, settings, projections ----------------------------------------------------------

    def add_text(
        self, tag: str, text_string: str, global_step: int | None = None,
        walltime: float | None = None,
    ) -> None:  # fmt: skip
        """Add a text; TensorBoard renders Markdown."""
        from tensorboardX.summary import text

        self._add(text(tag, str(text_string)), global_step, walltime)

    def add_hparams(
        self,
        hparam_dict: Mapping[str, Any],
        metric_dict: Mapping[str, Any],
        hparam_domain_discrete: Mapping[str, Sequence[Any]] | None = None,
        run_name: str | None = None,
        global_step: int | None = None,
    ) -> None:
        """Add the settings of a run and what came of it, for the table of the HPARAMS tab.

        Args:
            hparam_dict: name → bool, number, string or None (left out).
            metric_dict: name → number. A name should be no tag of ``add_scalar``.
            hparam_domain_discrete: name → all values that the setting may have.
            run_name: the folder in ``log_dir``; by default the time.
            global_step: the step.

        Raises:
            TypeError: something else is in a dict.
        """
        summaries = _hparams(hparam_dict, metric_dict, hparam_domain_discrete or {})
        folder = os.path.join(self.log_dir, str(time.time()) if run_name is None else run_name)
        for summary in summaries:
            self._add(summary, None, None, folder)
        for tag, value in metric_dict.items():
            self._add(_scalar(tag, value), global_step, None, folder)
        self._files.pop(folder).close()

    def add_graph(
        self, model: Any, input_to_model: Any = None, verbose: bool = False,
        use_strict_trace: bool = True,
    ) -> None:  # fmt: skip
        """Add the operations of a model, grouped by module.

        The model is called once, and is left as it was. What is drawn is what gradients pass through.

        Args:
            model: the module.
            input_to_model: its input, or a tuple of them.
            verbose, use_strict_trace: PyTorch's arguments, without meaning here.

        Raises:
            ValueError: there is no input, or no gradient passes through the model.
            TypeError: ``model`` is no module.
        """
        from tensorboardX.proto.event_pb2 import Event

        from kilograd.utils.tensorboard_graph import graph_of

        if input_to_model is None:
            raise ValueError(
                "add_graph: input_to_model is missing, an input to call the model with"
            )
        graph = graph_of(model, input_to_model).SerializeToString()
        self._file(self.log_dir).write(Event(graph_def=graph, wall_time=time.time()))

    def add_pr_curve(
        self, tag: str, labels: Any, predictions: Any, global_step: int | None = None,
        num_thresholds: int = 127, weights: Any = None, walltime: float | None = None,
    ) -> None:  # fmt: skip
        """Add a curve of precision and recall.

        Args:
            tag: the curve.
            labels: what is true, 0 or 1 (or bool), any shape.
            predictions: the probability of 1, of the same shape.
            global_step: the step.
            num_thresholds: points of the curve, from 2 to 127.
            weights: how much each sample counts, of the same shape.
            walltime: the time.

        Raises:
            ValueError: other shapes or values.
        """
        from tensorboardX.summary import pr_curve

        truth = _array(labels, "add_pr_curve: labels").reshape(-1)
        chance = _array(predictions, "add_pr_curve: predictions").reshape(-1).astype(np.float64)
        if truth.shape != chance.shape or not truth.size:
            raise ValueError(
                f"add_pr_curve: {truth.size} labels do not fit {chance.size} predictions"
            )
        if not np.isin(truth, (0, 1)).all() or not ((chance >= 0) & (chance <= 1)).all():
            raise ValueError("add_pr_curve: labels are 0 or 1, and predictions from 0 to 1")
        if not 2 <= num_thresholds <= 127:
            raise ValueError(
                f"add_pr_curve: num_thresholds must be from 2 to 127, got {num_thresholds}"
            )
        if weights is not None:
            weights = np.broadcast_to(
                _array(weights, "add_pr_curve: weights").reshape(-1), truth.shape
            )
        self._add(pr_curve(tag, truth, chance, num_thresholds, weights), global_step, walltime)

    def add_embedding(
        self, mat: Any, metadata: Sequence[Any] | None = None, label_img: Any = None,
        global_step: int | None = None, tag: str = "default",
        metadata_header: Sequence[str] | None = None,
    ) -> None:  # fmt: skip
        """Add points for TensorBoard's projector. A second call with the same step and tag replaces the first.

        Args:
            mat: the points, (N, D).
            metadata: a label for each, or with ``metadata_header`` a sequence of them.
            label_img: an image for each, (N, 1 or 3, S, S), valued as in :meth:`add_image`.
            global_step: the step (0).
            tag: the name.
            metadata_header: the names of the columns of ``metadata``.

        Raises:
            ValueError: shapes or lengths that do not fit, or more images than 8192 × 8192 pixels hold.
        """
        from tensorboardX.embedding import make_mat, make_tsv

        points = _array(mat, "add_embedding")
        if points.ndim != 2 or not points.size:
            raise ValueError(f"add_embedding: mat must have the shape (N, D), got {points.shape}")
        rows: list[Any] | None = None
        if metadata is not None:
            rows = [
                [_line(v) for v in row] if metadata_header else _line(row)
                for row in (
                    metadata.tolist() if isinstance(metadata, (Tensor, np.ndarray)) else metadata
                )
            ]
            if len(rows) != len(points):
                raise ValueError(
                    f"add_embedding: {len(points)} points, but {len(rows)} rows of metadata"
                )
            if metadata_header and any(len(row) != len(metadata_header) for row in rows):
                raise ValueError(
                    f"add_embedding: a row of metadata has not the {len(metadata_header)} columns of the header"
                )
        pictures = None
        if label_img is not None:
            pictures = _bytes(label_img)
            fits = pictures.ndim == 4 and pictures.shape[1] in (1, 3)
            if not fits or len(pictures) != len(points) or pictures.shape[2] != pictures.shape[3]:
                raise ValueError(
                    f"add_embedding: label_img must have the shape ({len(points)}, 1 or 3, S, S), got "
                    f"{pictures.shape}"
                )
            if math.ceil(math.sqrt(len(points))) * pictures.shape[3] > 8192:
                raise ValueError("add_embedding: √N · S must not be more than 8192 pixels")
        step = str(0 if global_step is None else int(global_step)).zfill(5)
        name = f"{tag}:{step}"
        for character in '%/\\:"':
            tag = tag.replace(character, f"%{ord(character):02x}")
        folder = os.path.join(self.log_dir, step, tag)
        os.makedirs(folder, exist_ok=True)
        make_mat(points.astype(np.float64), folder)
        entry = {"tensor_name": name, "tensor_path": f"{step}/{tag}/tensors.tsv"}
        if rows is not None:
            make_tsv(rows, folder, list(metadata_header) if metadata_header else None)
            entry["metadata_path"] = f"{step}/{tag}/metadata.tsv"
        if pictures is not None:
            _write_sprite(pictures, os.path.join(folder, "sprite.png"))
            entry["image_path"] = f"{step}/{tag}/sprite.png"
        _enter(self.log_dir, entry, None if pictures is None else pictures.shape[3])

    # --- the files --------------------------------------------------------------------------

    def flush(self) -> None:
        """Everything added so far is on the disk when this returns."""
        for file in self._files.values():
            file.flush()

    def close(self) -> None:
        """Flush and close the files; what is added afterwards goes to a new one."""
        while self._files:
            self._files.popitem()[1].close()

    def __enter__(self) -> SummaryWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:  # fmt: skip
        self.close()

    def _file(self, folder: str) -> EventFile:
        if folder not in self._files:
            purge = self.purge_step if folder == self.log_dir else None
            self._files[folder] = EventFile(
                folder, self.filename_suffix, self.max_queue, self.flush_secs, purge
            )
            if folder == self.log_dir:
                self.purge_step = None  # a file that is opened after close() takes nothing back
        return self._files[folder]

    def _add(
        self, summary: Any, step: Any = None, walltime: float | None = None, folder: str | None = None
    ) -> None:  # fmt: skip
        from tensorboardX.proto.event_pb2 import Event

        event = Event(
            summary=summary, wall_time=time.time() if walltime is None else float(walltime)
        )
        if step is not None:
            event.step = int(step)
        self._file(folder or self.log_dir).write(event)


def _array(x: Any, what: str) -> np.ndarray[Any, Any]:
    """Real numbers as an array, detached."""
    array = x.numpy(force=True) if isinstance(x, Tensor) else np.asarray(x)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{what}: expected real numbers, got {array.dtype} of {type(x).__name__}")
    return array


def _scalar(tag: str, value: Any, new_style: bool = False, double_precision: bool = False) -> Any:
    from tensorboardX.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboardX.proto.tensor_pb2 import TensorProto

    array = _array(value, f"add_scalar: {tag!r}")
    if array.size != 1:
        raise ValueError(f"add_scalar: {tag!r} must have one element, got the shape {array.shape}")
    number = float(array.item())
    if not (new_style or double_precision):
        return Summary(value=[Summary.Value(tag=tag, simple_value=number)])
    tensor = (
        TensorProto(dtype="DT_DOUBLE", double_val=[number])
        if double_precision
        else TensorProto(dtype="DT_FLOAT", float_val=[number])
    )
    plugin = SummaryMetadata.PluginData(plugin_name="scalars")
    metadata = SummaryMetadata(plugin_data=plugin)
    return Summary(value=[Summary.Value(tag=tag, tensor=tensor, metadata=metadata)])


def _tensorflow_edges() -> np.ndarray[Any, Any]:
    """From 1e-12 each edge is 1.1 times the one before, up to 1e20 and then the largest float; both signs."""
    up = np.append(1e-12 * 1.1 ** np.arange(774), np.finfo(np.float64).max)
    return np.concatenate([-up[::-1], [0.0], up])


def _bytes(images: Any) -> np.ndarray[Any, Any]:
    """Pixels as uint8."""
    array = _array(images, "add_image")
    if array.dtype.kind == "f":
        return np.rint(np.nan_to_num(np.clip(array.astype(np.float64), 0, 1)) * 255).astype(
            np.uint8
        )
    if array.dtype.kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if array.size and (array.min() < 0 or array.max() > 255):
        raise ValueError(
            f"add_image: integers are from 0 to 255; these go from {array.min()} to {array.max()}"
        )
    return array.astype(np.uint8)


def _pixels(figure: Any) -> np.ndarray[Any, Any]:
    """A drawn figure as (H, W, 4) uint8, without pyplot."""
    if not hasattr(figure, "savefig"):
        raise TypeError(f"add_figure: expected a Matplotlib figure, got {type(figure).__name__}")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="rgba", dpi=figure.dpi)
    height = int(figure.bbox.height)
    return np.frombuffer(buffer.getvalue(), np.uint8).reshape(height, -1, 4)


def _hparams(
    settings: Mapping[str, Any], metrics: Mapping[str, Any], domains: Mapping[str, Sequence[Any]]
) -> Iterable[Any]:
    """The three messages of the plugin: what there is to set, the start of a session, and its end."""
    from tensorboardX.proto import api_pb2, plugin_hparams_pb2
    from tensorboardX.proto.summary_pb2 import Summary, SummaryMetadata

    if not isinstance(settings, Mapping) or not isinstance(metrics, Mapping):
        raise TypeError("add_hparams: hparam_dict and metric_dict must be dicts")
    if unknown := domains.keys() - settings.keys():
        raise TypeError(
            f"add_hparams: hparam_domain_discrete names {sorted(unknown)}, not a setting"
        )
    start = plugin_hparams_pb2.SessionStartInfo()
    infos = []
    kind: tuple[type, ...]
    for name, given in settings.items():
        if given is None:
            continue
        value = given.item() if isinstance(given, (Tensor, np.ndarray, np.generic)) else given
        if isinstance(value, bool):  # before int, whose subclass it is
            kind, field, data_type = (bool,), "bool_value", api_pb2.DATA_TYPE_BOOL
        elif isinstance(value, (int, float)):
            kind, field, data_type = (int, float), "number_value", api_pb2.DATA_TYPE_FLOAT64
        elif isinstance(value, str):
            kind, field, data_type = (str,), "string_value", api_pb2.DATA_TYPE_STRING
        else:
            raise TypeError(
                f"add_hparams: {name!r} must be a bool, number, string or None, not {type(given).__name__}"
            )
        setattr(start.hparams[name], field, value)
        info = api_pb2.HParamInfo(name=name, type=data_type)
        if name in domains:
            if not all(isinstance(v, kind) for v in domains[name]):
                raise TypeError(
                    f"add_hparams: the domain of {name!r} must hold {type(value).__name__}s"
                )
            info.domain_discrete.extend(list(domains[name]))
        infos.append(info)
    named = [api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag)) for tag in metrics]
    experiment = api_pb2.Experiment(hparam_infos=infos, metric_infos=named)
    end = plugin_hparams_pb2.SessionEndInfo(status=api_pb2.STATUS_SUCCESS)
    summaries = []
    for tag, field, message in (
        ("_hparams_/experiment", "experiment", experiment),
        ("_hparams_/session_start_info", "session_start_info", start),
        ("_hparams_/session_end_info", "session_end_info", end),
    ):
        content = plugin_hparams_pb2.HParamsPluginData(version=0, **{field: message})
        plugin = SummaryMetadata.PluginData(
            plugin_name="hparams", content=content.SerializeToString()
        )
        metadata = SummaryMetadata(plugin_data=plugin)
        summaries.append(Summary(value=[Summary.Value(tag=tag, metadata=metadata)]))
    return summaries


def _line(value: Any) -> str:
    """A label without the tabs and line ends that separate labels."""
    return " ".join(str(value).split()) or " "


def _write_sprite(images: np.ndarray[Any, Any], path: str) -> None:
    """All images (N, C, S, S) in one square one, row by row, as the projector wants them."""
    from PIL import Image

    count, _, side, _ = images.shape
    columns = math.ceil(math.sqrt(count))
    sheet = np.zeros((columns * side, columns * side, 3), np.uint8)
    for k, image in enumerate(images):
        top, left = k // columns * side, k % columns * side
        sheet[top : top + side, left : left + side] = np.moveaxis(image, 0, 2)
    Image.fromarray(sheet).save(path)


def _enter(folder: str, entry: dict[str, str], side: int | None) -> None:
    """Write an embedding's entry in the projector's list, in place of an older one of its name."""
    path = os.path.join(folder, "projector_config.pbtxt")
    text = ""
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            text = file.read()
    blocks = ["embeddings {\n" + b for b in text.split("embeddings {\n")[1:]]
    quoted = {k: '"' + v.replace("\\", "\\\\").replace('"', '\\"') + '"' for k, v in entry.items()}
    blocks = [b for b in blocks if f"tensor_name: {quoted['tensor_name']}\n" not in b]
    image = quoted.pop("image_path", None)
    lines = [f"{key}: {value}" for key, value in quoted.items()]
    if image is not None:
        size = f"single_image_dim: {side}"
        lines += ["sprite {", f"image_path: {image}", size, size, "}"]
    blocks.append("embeddings {\n" + "\n".join(lines) + "\n}\n")
    with open(path + ".tmp", "w", encoding="utf-8") as file:
        file.write("".join(blocks))
    os.replace(path + ".tmp", path)
