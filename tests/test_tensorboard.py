"""Event files are read back, record by record, with their checksums."""

import io
import itertools
import math
import re
import struct
import sys
import time

import numpy as np
import pytest

import kilograd as kg
from kilograd import nn
from kilograd.utils.tensorboard import SummaryWriter

pytest.importorskip("tensorboardX")

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.graph_pb2 import GraphDef
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData
from tensorboardX.record_writer import masked_crc32c


def events(folder):
    """All events of the files in a folder, oldest file first; every checksum must be right."""
    found = []
    for path in sorted(
        folder.glob("events.out.tfevents.*"),
        key=lambda p: int(re.search(r"\.(\d+)[^.]*$", p.name)[1]),
    ):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            assert struct.unpack("<I", data[8:12]) == (masked_crc32c(data[:8]),)
            body, end = data[12 : 12 + length], data[12 + length : 16 + length]
            assert len(body) == length and struct.unpack("<I", end) == (masked_crc32c(body),)
            found.append(Event.FromString(body))
            data = data[16 + length :]
    return found


def values(folder):
    return {v.tag: v for e in events(folder) for v in e.summary.value}


def pixels(value):
    image = pytest.importorskip("PIL.Image")
    return np.asarray(image.open(io.BytesIO(value.image.encoded_image_string)))


@pytest.fixture
def writer(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        yield writer


NUMBERS = [
    2, 2.0, True + 1, np.float32(2), np.array([[2]]), kg.tensor(2), kg.tensor([2.0]),
    kg.tensor(2.0, requires_grad=True), kg.tensor([[2.0]], dtype=kg.float16), kg.tensor(2, dtype=kg.uint8),
    (kg.tensor(1.0, requires_grad=True) * 2),
]  # fmt: skip


@pytest.mark.parametrize("number", NUMBERS, ids=repr)
def test_scalars_of_any_kind(tmp_path, writer, number):
    writer.add_scalar("a/b", number, kg.tensor(7), walltime=12.5)
    writer.flush()
    first, event = events(tmp_path)
    assert first.file_version == "brain.Event:2"
    assert (event.step, event.wall_time) == (7, 12.5)
    (value,) = event.summary.value
    assert (value.tag, value.simple_value) == ("a/b", 2.0)


def test_scalars_that_are_none(tmp_path, writer):
    for bad, error in (
        (kg.rand(2), ValueError),
        (kg.rand(0), ValueError),
        ("2", TypeError),
        (None, TypeError),
    ):
        with pytest.raises(error, match="add_scalar: 'x'"):
            writer.add_scalar("x", bad)
    writer.add_scalar("nan", math.nan)
    writer.add_scalar("inf", kg.tensor(-math.inf))
    writer.flush()
    got = values(tmp_path)
    assert math.isnan(got["nan"].simple_value) and got["inf"].simple_value == -math.inf
    assert list(got) == ["nan", "inf"]


def test_newer_scalars(tmp_path, writer):
    writer.add_scalar("single", 0.1, new_style=True)
    writer.add_scalar("double", 0.1, double_precision=True)
    writer.flush()
    got = values(tmp_path)
    assert got["single"].tensor.float_val[0] == np.float32(0.1)
    assert got["double"].tensor.double_val[0] == 0.1
    assert all(v.metadata.plugin_data.plugin_name == "scalars" for v in got.values())


def test_steps_and_times(tmp_path, writer):
    before = time.time()
    writer.add_scalar("a", 1)
    writer.add_scalar("a", 2, global_step=np.int64(10**10))
    writer.close()
    _, first, second = events(tmp_path)
    assert first.step == 0 and second.step == 10**10
    assert before <= first.wall_time <= second.wall_time <= time.time()


def test_several_scalars_are_several_runs(tmp_path, writer):
    for step in range(3):
        writer.add_scalars("loss/all", {"train": kg.tensor(1.0 / (step + 1)), "val": step}, step)
    writer.close()
    for name, expected in (("train", [1, 0.5, 1 / 3]), ("val", [0, 1, 2])):
        got = [v for e in events(tmp_path / f"loss_all_{name}") for v in e.summary.value]
        assert {v.tag for v in got} == {"loss/all"}
        np.testing.assert_allclose([v.simple_value for v in got], expected, rtol=1e-6)


@pytest.mark.parametrize("bins", ["tensorflow", "auto", 12, [-30, 0, 30]])
@pytest.mark.parametrize("dtype", [kg.float32, kg.float16, kg.int64])
def test_histograms(tmp_path, writer, bins, dtype):
    kg.manual_seed(0)
    x = (kg.randn(10, 30) * 3).to(dtype)
    writer.add_histogram("h", x, 4, bins=bins)
    writer.flush()
    histogram = values(tmp_path)["h"].histo
    array = x.numpy().astype(np.float64)
    assert (histogram.num, histogram.min, histogram.max) == (300, array.min(), array.max())
    assert histogram.sum == pytest.approx(array.sum())
    assert histogram.sum_squares == pytest.approx((array**2).sum())
    assert sum(histogram.bucket) == 300
    edges = np.array(histogram.bucket_limit)
    inside = [((array > low) & (array < high)).sum() for low, high in itertools.pairwise(edges)]
    for k, count in enumerate(inside, start=1):
        assert histogram.bucket[k] >= count


def test_histograms_of_few_bins_and_large_values(tmp_path, writer):
    writer.add_histogram("few", kg.randn(1000), max_bins=10)
    writer.add_histogram("large", kg.tensor([-1e30, 0.0, 1e38]))
    writer.add_histogram("bool", kg.tensor([True, False]))
    writer.flush()
    got = values(tmp_path)
    assert len(got["few"].histo.bucket) <= 25 and sum(got["few"].histo.bucket) == 1000
    assert sum(got["large"].histo.bucket) == 3 and sum(got["bool"].histo.bucket) == 2


def test_histograms_leave_out_what_is_not_finite(tmp_path, writer):
    with pytest.warns(RuntimeWarning, match="2 of 3 values of 'h'"):
        writer.add_histogram("h", kg.tensor([1.0, math.nan, math.inf]))
    with pytest.warns(RuntimeWarning, match="1 of 1 values of 'none'"):
        writer.add_histogram("none", [math.nan])
    with pytest.raises(ValueError, match="has no values"):
        writer.add_histogram("empty", kg.rand(0))
    writer.flush()
    assert values(tmp_path).keys() == {"h"} and values(tmp_path)["h"].histo.num == 1


@pytest.mark.parametrize("layout", ["CHW", "HWC", "HW", "WH"])
def test_images(tmp_path, writer, layout):
    x = kg.rand(3, 5, 7)
    if "C" not in layout:
        x = x[0]
    order = {"CHW": (0, 1, 2), "HWC": (1, 2, 0), "HW": (0, 1), "WH": (1, 0)}[layout]
    writer.add_image("i", x.permute(order).half().requires_grad_(), dataformats=layout)
    writer.flush()
    got = pixels(values(tmp_path)["i"])
    assert got.shape == (5, 7, 3)
    expected = x.numpy() if "C" in layout else np.stack([x.numpy()] * 3)
    np.testing.assert_allclose(np.moveaxis(got, 2, 0) / 255, expected, atol=0.003)


def test_values_of_images(tmp_path, writer):
    for name, x in {
        "bytes": kg.tensor([[0, 128, 255]], dtype=kg.uint8),
        "integers": kg.tensor([[0, 128, 255]]),
        "beyond": kg.tensor([[-3.0, 128 / 255, 7.0]]),
        "not finite": kg.tensor([[math.nan, 128 / 255, math.inf]]),
    }.items():
        writer.add_image(name, x, dataformats="HW")
    writer.add_image("bool", kg.tensor([[False, True, True]]), dataformats="HW")
    writer.flush()
    got = values(tmp_path)
    for name in ("bytes", "integers", "beyond", "not finite"):
        assert pixels(got[name])[0, :, 0].tolist() == [0, 128, 255], name
    assert pixels(got["bool"])[0, :, 0].tolist() == [0, 255, 255]
    with pytest.raises(ValueError, match="from 0 to 255"):
        writer.add_image("i", kg.tensor([[256]]), dataformats="HW")


def test_a_grid_of_images(tmp_path, writer):
    x = kg.rand(10, 1, 4, 6)
    writer.add_images("NCHW", x)
    writer.add_images("NHWC", x.permute(0, 2, 3, 1), dataformats="NHWC")
    writer.flush()
    got = values(tmp_path)
    assert pixels(got["NCHW"]).shape == (8, 48, 3)
    np.testing.assert_array_equal(pixels(got["NCHW"]), pixels(got["NHWC"]))


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((5, 7), "CHW"),
        ((3, 5, 7), "HW"),
        ((2, 5, 7), "CHW"),
        ((0, 3, 4, 4), "NCHW"),
        ((3, 5, 7), "XYZ"),
    ],
)
def test_bad_images(writer, shape, layout):
    with pytest.raises(ValueError, match="dataformats"):
        writer.add_image("i", kg.rand(shape), dataformats=layout)


def test_figures(tmp_path, writer):
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    from kilograd.viz.training_curves import curves

    plot = curves({"loss": [2.0, 1.0]})
    writer.add_figure("plot", plot, 3)
    writer.add_figure("figure", plot.figure, close=False)
    writer.add_figure("two", [plot, plot])
    writer.flush()
    got = values(tmp_path)
    width, height = (int(n) for n in plot.figure.bbox.size)
    assert pixels(got["plot"]).shape == (height, width, 4)
    np.testing.assert_array_equal(pixels(got["plot"]), pixels(got["figure"]))
    assert pixels(got["two"]).shape == (height, 2 * width, 4)
    assert len(np.unique(pixels(got["plot"]).reshape(-1, 4), axis=0)) > 5
    with pytest.raises(ValueError, match="one size"):
        writer.add_figure("two", [plot, Figure((1, 1))])
    with pytest.raises(TypeError, match="expected a Matplotlib figure"):
        writer.add_figure("none", 3)


def test_text(tmp_path, writer):
    writer.add_text("notes", "**bold** äöü", 1)
    writer.flush()
    value = values(tmp_path)["notes/text_summary"]
    assert value.tensor.string_val[0].decode() == "**bold** äöü"
    assert value.metadata.plugin_data.plugin_name == "text"


def test_hyperparameters(tmp_path, writer):
    writer.add_hparams(
        {"lr": 0.1, "layers": kg.tensor(3), "optimizer": "adam", "bias": True, "none": None},
        {"hparam/accuracy": kg.tensor(0.5)},
        {"optimizer": ["adam", "sgd"], "lr": [0.1, 0.2]},
        run_name="first",
        global_step=5,
    )
    got = values(tmp_path / "first")
    assert got["hparam/accuracy"].simple_value == 0.5
    parts = [
        HParamsPluginData.FromString(got[f"_hparams_/{name}"].metadata.plugin_data.content)
        for name in ("experiment", "session_start_info", "session_end_info")
    ]
    start = parts[1].session_start_info.hparams
    assert {k: start[k].WhichOneof("kind") for k in start} == {
        "lr": "number_value", "layers": "number_value", "optimizer": "string_value", "bias": "bool_value",
    }  # fmt: skip
    assert (start["lr"].number_value, start["layers"].number_value) == (0.1, 3)
    infos = {info.name: info for info in parts[0].experiment.hparam_infos}
    assert [v.string_value for v in infos["optimizer"].domain_discrete.values] == ["adam", "sgd"]
    assert parts[0].experiment.metric_infos[0].name.tag == "hparam/accuracy"
    assert parts[2].WhichOneof("data") == "session_end_info"
    writer.add_hparams({"lr": 1.0}, {"a": 1})
    assert sum(p.is_dir() for p in tmp_path.iterdir()) == 2
    for bad in (
        ({"f": print}, {}),
        ([], {}),
        ({"a": 1}, {}, {"b": [1]}),
        ({"a": 1}, {}, {"a": ["x"]}),
    ):
        with pytest.raises(TypeError, match="add_hparams"):
            writer.add_hparams(*bad, run_name="bad")
    assert not (tmp_path / "bad").exists()


def test_precision_and_recall(tmp_path, writer):
    labels, chance = kg.tensor([0, 0, 1, 1]), kg.tensor([0.1, 0.4, 0.35, 0.8], requires_grad=True)
    writer.add_pr_curve("pr", labels, chance, num_thresholds=11)
    writer.add_pr_curve(
        "weighted", labels.bool(), chance, num_thresholds=11, weights=kg.tensor([1, 1, 1, 3])
    )
    writer.flush()
    got = {k: np.array(v.tensor.float_val).reshape(6, 11) for k, v in values(tmp_path).items()}
    tp, fp, tn, fn, precision, recall = got["pr"]
    thresholds = np.arange(11) / 10
    x, y = chance.numpy(force=True), labels.numpy()
    np.testing.assert_array_equal(tp, [((x >= t) & (y == 1)).sum() for t in thresholds])
    np.testing.assert_array_equal(fp, [((x >= t) & (y == 0)).sum() for t in thresholds])
    np.testing.assert_array_equal(tn + fp, np.full(11, 2))
    np.testing.assert_allclose(recall, tp / (tp + fn))
    assert got["weighted"][0][0] == 4
    for bad in (
        (labels[:3], chance), (labels + 1, chance), (labels, chance * 2), (labels, chance * math.nan),
        (labels[:0], chance[:0]), (labels, chance, None, 1), (labels, chance, None, 128),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="add_pr_curve"):
            writer.add_pr_curve("bad", *bad)


def test_embeddings(tmp_path, writer):
    image = pytest.importorskip("PIL.Image")
    points, pictures = kg.randn(5, 3, requires_grad=True), kg.rand(5, 1, 8, 8)
    writer.add_embedding(
        points, ["a", 1, "tab\there", "d", "e"], pictures, global_step=2, tag="x/y"
    )
    folder = tmp_path / "00002" / "x%2fy"
    np.testing.assert_array_equal(
        np.loadtxt(folder / "tensors.tsv", dtype=np.float32), points.numpy(force=True)
    )
    assert (folder / "metadata.tsv").read_text() == "a\n1\ntab here\nd\ne\n"
    sheet = np.asarray(image.open(folder / "sprite.png"))
    assert sheet.shape == (24, 24, 3) and (sheet[16:] == 0).all()
    np.testing.assert_allclose(sheet[8:16, :8, 0] / 255, pictures[3, 0].numpy(), atol=0.003)

    writer.add_embedding(points, [["a", "b"]] * 5, metadata_header=["p", "q"])
    config = (tmp_path / "projector_config.pbtxt").read_text()
    assert config.count("embeddings {") == 2 and config.count("{") == config.count("}")
    assert 'tensor_path: "00002/x%2fy/tensors.tsv"' in config and "single_image_dim: 8" in config
    assert (tmp_path / "00000/default/metadata.tsv").read_text().startswith("p\tq\na\tb\n")
    writer.add_embedding(points, global_step=2, tag="x/y")  # the same again: in its place
    config = (tmp_path / "projector_config.pbtxt").read_text()
    assert config.count("embeddings {") == 2 and "sprite" not in config


def test_bad_embeddings(tmp_path, writer):
    points = kg.rand(4, 3)
    for bad in (
        (kg.rand(3),), (kg.rand(0, 3),), (points, ["a"]), (points, None, kg.rand(4, 1, 8, 9)),
        (points, None, kg.rand(3, 1, 8, 8)), (points, None, kg.rand(4, 2, 8, 8)), (points, None, kg.zeros(4, 1, 4097, 4097)),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="add_embedding"):
            writer.add_embedding(*bad)
    with pytest.raises(ValueError, match="columns of the header"):
        writer.add_embedding(points, [["a"]] * 4, metadata_header=["p", "q"])
    assert [p.name[:6] for p in tmp_path.iterdir()] == ["events"]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.body = nn.Sequential(nn.BatchNorm2d(2), nn.ReLU())
        self.lstm = nn.LSTM(16, 4, batch_first=True)
        self.out = nn.Linear(4, 3)

    def forward(self, x):
        hidden = self.body(self.conv(x) * 2).flatten(2)
        return self.out(self.lstm(hidden)[0][:, -1])


def test_the_graph_of_a_model(tmp_path, writer):
    model = Net()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    writer.add_graph(model, kg.rand(2, 1, 6, 6))
    writer.flush()
    graph = GraphDef.FromString(events(tmp_path)[-1].graph_def)
    nodes = {n.name: n for n in graph.node}
    assert len(nodes) == len(graph.node)
    assert {i.partition(":")[0] for n in graph.node for i in n.input} <= nodes.keys()
    assert list(nodes["Net/conv/conv"].input) == ["input/0", "Net/conv/weight", "Net/conv/bias"]
    assert list(nodes["Net/multiply"].input) == [
        "Net/conv/conv"
    ]  # between two modules: the outer one's
    assert list(nodes["Net/body/1/relu"].input) == ["Net/body/0/batch_norm"]
    assert list(nodes["output/0"].input) == ["Net/out/linear"]
    assert "Net/lstm/weight_hh_l0" in nodes
    shape = nodes["Net/out/linear"].attr["_output_shapes"].list.shape[0]
    assert [d.size for d in shape.dim] == [2, 3]
    assert all(kg.equal(v, state[k]) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(p.grad is None for p in model.parameters())


def test_graphs_of_unusual_models(tmp_path, writer):
    embedding = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 1))
    writer.add_graph(embedding, kg.tensor([1, 2]))  # an input without gradient
    with kg.no_grad():
        writer.add_graph(nn.Bilinear(2, 3, 4), (kg.rand(1, 2), kg.rand(1, 3)))
    shared = nn.Linear(2, 2)
    writer.add_graph(nn.Sequential(shared, shared), kg.rand(1, 2))
    writer.flush()
    graphs = [GraphDef.FromString(e.graph_def) for e in events(tmp_path)[1:]]
    assert [sum(n.op == "Placeholder" for n in g.node) for g in graphs] == [0, 2, 1]
    assert [n.name for n in graphs[2].node if n.op == "linear"] == [
        "Sequential/0/linear", "Sequential/0/linear_1",
    ]  # fmt: skip
    with pytest.raises(TypeError, match="expected a module"):
        writer.add_graph(lambda x: x, kg.rand(1))
    with pytest.raises(ValueError, match="input_to_model is missing"):
        writer.add_graph(shared)
    with pytest.raises(ValueError, match="no gradient"):
        writer.add_graph(nn.Identity(), kg.tensor([1]))
    with pytest.raises(RuntimeError):
        writer.add_graph(embedding, kg.tensor([9]).reshape(1, 1).float())
    assert not any(m._forward_hooks for m in embedding.modules())


def test_flush_and_close(tmp_path):
    writer = SummaryWriter(tmp_path, max_queue=100, flush_secs=1000, filename_suffix="-first")
    writer.add_scalar("a", 1)
    writer.flush()
    assert len(events(tmp_path)) == 2
    writer.close()
    writer.close()
    writer.add_scalar("a", 2)  # a new file
    writer.close()
    assert [v.simple_value for e in events(tmp_path) for v in e.summary.value] == [1, 2]
    assert len(list(tmp_path.iterdir())) == 2 and writer.get_logdir() == str(tmp_path)


@pytest.mark.parametrize("settings", [{"max_queue": 0}, {"flush_secs": -1}])
def test_files_are_flushed_by_themselves(tmp_path, settings):
    writer = SummaryWriter(tmp_path, **settings)
    for step in range(3):
        writer.add_scalar("a", step, step)
        assert [v.simple_value for e in events(tmp_path) for v in e.summary.value][-1] == step
    writer.close()


def test_files_are_whole_after_an_exception(tmp_path):
    with pytest.raises(KeyError), SummaryWriter(tmp_path) as writer:
        writer.add_scalar("a", 1)
        raise KeyError
    assert len(events(tmp_path)) == 2


def test_two_writers_of_one_folder_have_two_files(tmp_path):
    with SummaryWriter(tmp_path) as a, SummaryWriter(tmp_path) as b:
        a.add_scalar("a", 1)
        b.add_scalar("b", 2)
    assert len(list(tmp_path.iterdir())) == 2 and values(tmp_path).keys() == {"a", "b"}


def test_resuming_takes_back_later_steps(tmp_path):
    with SummaryWriter(tmp_path, purge_step=5):
        pass
    _, purge = events(tmp_path)
    assert (purge.step, purge.session_log.status) == (5, SessionLog.START)


def test_threads_do_not_mix_their_records(tmp_path):
    from threading import Thread

    with SummaryWriter(tmp_path, max_queue=10**6) as writer:
        add = lambda k: [writer.add_scalar(f"t{k}", i, i) for i in range(200)]  # noqa: E731
        threads = [Thread(target=add, args=(k,)) for k in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    assert len(events(tmp_path)) == 801


def test_the_default_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    SummaryWriter(comment="-try").close()
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.endswith("-try") and len(events(run)) == 1


def test_without_tensorboardx_the_message_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=r"pip install 'kilograd\[tensorboard\]'"):
        SummaryWriter(tmp_path / "x")
    assert not (tmp_path / "x").exists()
