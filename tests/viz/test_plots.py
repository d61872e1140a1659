"""Pictures of numbers: what is drawn is what was given, and looking changes nothing."""

import math
import sys

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import kilograd as kg
from kilograd import nn
from kilograd.viz.boundary import decision_boundary
from kilograd.viz.confusion import confusion_matrix, count_confusions
from kilograd.viz.distributions import activations, histograms
from kilograd.viz.picture import Plot, shorten, text_on
from kilograd.viz.tiles import filters, images
from kilograd.viz.training_curves import curves


def empty_axes(count=1):
    axes = Figure(figsize=(4 * count, 3)).subplots(1, count, squeeze=False)[0]
    return axes[0] if count == 1 else axes


def lines(axes):
    return {line.get_label(): line.get_ydata() for line in axes.get_lines()}


def titles(plot):
    return [axes.get_title() for axes in plot.axes]


def boxes_overlap(figure, texts):
    """Whether any two of these texts are drawn over each other."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    boxes = [t.get_window_extent(renderer).shrunk(0.98, 0.9) for t in texts if t.get_text()]
    return any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


# --- the picture ------------------------------------------------------------------------------------


def test_saving_by_suffix(tmp_path):
    plot = curves({"loss": [3.0, 2.0]})
    for name, start in (("a.png", b"\x89PNG"), ("b.svg", b"<?xml"), ("c.PDF", b"%PDF")):
        assert plot.save(tmp_path / name) == tmp_path / name
        assert (tmp_path / name).read_bytes().startswith(start)
    assert plot._repr_png_().startswith(b"\x89PNG") and "<svg" in plot._repr_svg_()
    small, large = plot.save(tmp_path / "d.png", dpi=50), plot.save(tmp_path / "e.png", dpi=200)
    width = [int.from_bytes(p.read_bytes()[16:20], "big") for p in (small, large)]
    assert width[1] == 4 * width[0]
    again = curves({"loss": [3.0, 2.0]}).save(tmp_path / "f.png").read_bytes()
    assert again == (tmp_path / "a.png").read_bytes()


def test_saving_what_cannot_be_saved_leaves_the_old_file(tmp_path, monkeypatch):
    plot = curves({"loss": [3.0, 2.0]})
    for name in ("a.jpg", "a", "a.png.gz"):
        with pytest.raises(ValueError, match=r"\.png, \.svg, \.pdf"):
            plot.save(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="no folder"):
        plot.save(tmp_path / "absent" / "a.png")
    (tmp_path / "a.png").write_bytes(b"old")
    monkeypatch.setattr(plot.figure, "savefig", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        plot.save(tmp_path / "a.png")
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == b"old"


def test_pyplot_is_not_imported():
    if "matplotlib.pyplot" in sys.modules:
        pytest.skip("another test imported pyplot")
    curves({"loss": [1.0]})._repr_png_()
    images(kg.rand(2, 4, 4))._repr_png_()
    assert "matplotlib.pyplot" not in sys.modules


def test_without_matplotlib_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'kilograd\[viz\]'"):
        curves({"loss": [1.0]})


def test_drawing_into_given_axes():
    axes = empty_axes(2)
    history = {"loss": [2.0, 1.0], "accuracy": [0.1, 0.2]}
    plot = curves(history, ax=axes)
    assert isinstance(plot, Plot) and plot.figure is axes[0].figure and plot.axes == list(axes)
    assert titles(plot) == ["loss", "accuracy"]
    with pytest.raises(ValueError, match="2 panels, but ax= holds 1"):
        curves(history, ax=empty_axes())
    part = Figure().subfigures(1, 2)[0]
    assert confusion_matrix(np.eye(2), ax=part.subplots())._repr_png_()
    for draw in (
        lambda ax: confusion_matrix(np.eye(3), ax=ax),
        lambda ax: decision_boundary(nn.Linear(2, 1), kg.rand(5, 2), resolution=9, ax=ax),
        lambda ax: filters(nn.Conv2d(1, 4, 3), ax=ax, title="t"),
        lambda ax: images(kg.rand(4, 5, 5), titles="abcd", ax=ax, title="t"),
        lambda ax: histograms({"a": kg.rand(3)}, ax=ax, title="t"),
    ):
        ax = empty_axes()
        plot = draw(ax)
        assert plot.axes == [ax] and plot.figure is ax.figure and plot._repr_png_()


def test_shortening_and_the_colour_of_text():
    assert shorten("weight", 6) == "weight"
    short = shorten("encoder.layers.11.attention.weight", 20)
    assert len(short) == 20 and short.startswith("encoder") and short.endswith("tion.weight")
    assert [text_on(c) for c in ((1, 1, 1), (0, 0, 0), (1, 1, 0), (0, 0, 1))] == [
        "black", "white", "black", "white",
    ]  # fmt: skip


# --- training curves --------------------------------------------------------------------------------


def test_a_list_of_dicts_and_a_dict_of_lists_are_the_same_picture():
    columns = {
        "epoch": [1, 2, 3],
        "train_loss": [0.9, 0.5, 0.4],
        "val_loss": [1.0, 0.7, 0.8],
        "train_acc": [0.2, 0.5, 0.7],
    }
    rows = [{k: v[i] for k, v in columns.items()} for i in range(3)]
    for plot in (curves(columns), curves(rows)):
        assert titles(plot) == ["loss", "acc"]
        assert {k: list(v) for k, v in lines(plot.axes[0]).items()} == {
            "train": [0.9, 0.5, 0.4],
            "val": [1.0, 0.7, 0.8],
        }
        assert list(plot.axes[0].get_lines()[0].get_xdata()) == [1, 2, 3]
        assert plot.axes[0].get_xlabel() == "epoch" and plot.axes[0].get_legend()
        assert plot.axes[1].yaxis.get_major_formatter()(0.5, 0) == "50%"
        assert plot.axes[1].get_legend() is None
    assert curves(rows)._repr_png_() == curves(columns)._repr_png_()


def test_names_of_other_libraries():
    keras = curves({"loss": [2, 1], "val_loss": [3, 2], "accuracy": [50.0, 60.0]})
    assert set(lines(keras.axes[0])) == {"train", "val"}
    assert keras.axes[1].yaxis.get_major_formatter()(50, 0) == "50.0%"
    slashes = curves([{"train/loss": 1.0, "test/loss": 2.0, "lr": 0.1}] * 2)
    assert titles(slashes) == ["loss", "lr"] and set(lines(slashes.axes[0])) == {"train", "test"}

    class Fitted:
        history = {"loss": [2, 1]}

    assert list(lines(curves(Fitted()).axes[0])["loss"]) == [2, 1]


def test_missing_values_are_passed_over_and_nan_is_a_gap():
    plot = curves([{"a": 1.0, "b": 5.0}, {"a": math.nan}, {"a": 3.0, "b": None}, {"b": math.inf}])
    a, b = (axes.get_lines()[0] for axes in plot.axes)
    assert list(a.get_xdata()) == [1, 2, 3] and np.isnan(a.get_ydata()[1])
    assert list(b.get_xdata()) == [1, 4] and np.isnan(b.get_ydata()[1])  # inf
    never = curves([{"train_loss": 1.0, "val_loss": None}, {"train_loss": 2.0}])
    assert [line.get_label() for line in never.axes[0].get_lines()] == ["train"]
    many = np.full(1000, np.nan)
    many[[3, 500, 501]] = 1
    alone = curves({"loss": many}).axes[0].get_lines()[0]
    assert alone.get_markevery() == [3]  # 500 and 501 have a line
    nothing = curves({"loss": [math.nan, math.nan]})
    assert nothing.axes[0].texts[0].get_text() == "no finite value" and nothing._repr_png_()


@pytest.mark.parametrize("log", [False, True])
def test_one_epoch_is_a_point_in_the_middle(log):
    axes = curves([{"epoch": 7, "train_loss": 1.0, "train_accuracy": 0.5}], log=log).axes[0]
    assert list(axes.get_xticks()) == [7] and axes.get_xlim() == (6, 8)
    assert axes.get_lines()[0].get_markevery() == [0]


def test_logarithmic_scales():
    history = {"train_loss": [1.0, 0.1, 0.0], "train_acc": [0.1, 0.2, 0.3], "lr": [0.1, 0.2, 0.3]}
    scales = lambda log: [a.get_yscale() for a in curves(history, log=log).axes]  # noqa: E731
    assert scales(True) == ["log", "linear", "log"]
    assert scales(["loss"]) == scales("loss") == ["log", "linear", "linear"]
    assert scales(["train_acc"]) == ["linear", "log", "linear"]
    assert np.isnan(lines(curves(history, log=True).axes[0])["train"][2])
    with pytest.raises(ValueError, match="log= names"):
        scales(["los"])
    assert curves({"loss": [0.0, -1.0]}, log=True)._repr_png_()


def test_several_runs():
    run = [{"train_loss": 2.0, "val_loss": 3.0}, {"train_loss": 1.0, "val_loss": 2.0}]
    plot = curves({"adam": run, "sgd": {"train_loss": [5.0, 4.0, 3.0]}})
    assert {k: list(v) for k, v in lines(plot.axes[0]).items()} == {
        "adam, train": [2, 1],
        "adam, val": [3, 2],
        "sgd, train": [5, 4, 3],
    }
    adam, adam_val, sgd = plot.axes[0].get_lines()
    assert adam.get_color() == adam_val.get_color() != sgd.get_color()
    assert adam.get_linestyle() == sgd.get_linestyle() != adam_val.get_linestyle()
    (legend,) = plot.figure.legends
    assert [t.get_text() for t in legend.get_texts()] == ["adam", "sgd", "train", "val"]
    assert legend.get_lines()[1].get_color() == sgd.get_color()
    assert legend.get_lines()[3].get_linestyle() == adam_val.get_linestyle()
    assert curves({"a": run, "b": run}, ax=empty_axes()).axes[0].get_legend() is not None


def test_many_runs_leave_room_for_the_curves():
    run = {"train_loss": [3.0, 2.0], "val_loss": [4.0, 3.0], "val_accuracy": [0.1, 0.2]}
    plot = curves({f"learning rate {k}, batch size {k}, momentum 0.{k}": run for k in range(25)})
    plot._repr_png_()
    legend = plot.figure.legends[0].get_window_extent()
    width, height = plot.figure.bbox.size
    assert legend.x1 <= width + 1 and legend.y0 >= -1
    for axes in plot.axes:
        box = axes.get_window_extent()
        assert not box.overlaps(legend) and box.width > 0.2 * width


def test_choosing_keys_and_the_x_axis():
    history = {
        "step": [10, 20],
        "train_loss": [2, 1],
        "val_loss": [3, 2],
        "lr": [1, 1],
        "who": ["a", "b"],
    }
    assert titles(curves(history)) == ["loss", "lr"]
    assert set(lines(curves(history, keys=["loss"]).axes[0])) == {"train", "val"}
    assert titles(curves(history, keys="lr")) == ["lr"]
    assert set(lines(curves(history, keys=["val_loss"]).axes[0])) == {"val"}
    assert curves(history, keys=["lr"], x="val_loss").axes[0].get_xlabel() == "val_loss"
    for bad, message in (({"keys": ["acc"]}, "there is no"), ({"x": "time"}, "is not in")):
        with pytest.raises(ValueError, match=message):
            curves(history, **bad)


def test_numbers_may_be_tensors():
    rows = [
        {"loss": kg.tensor(2.0, requires_grad=True), "n": np.float16(1)},
        {"loss": kg.tensor([1]), "n": 2},
    ]
    plot = curves(rows)
    assert [list(a.get_lines()[0].get_ydata()) for a in plot.axes] == [[2, 1], [1, 2]]
    assert list(lines(curves({"loss": kg.tensor([3.0, 2.0])}).axes[0])["loss"]) == [3, 2]


@pytest.mark.parametrize(
    "history", [[], {}, {"loss": []}, [{}], [{"name": "a"}], {"epoch": [1, 2]}]
)
def test_nothing_to_draw(history):
    with pytest.raises(ValueError, match=r"no numbers|nothing to draw"):
        curves(history)


def test_histories_that_are_none():
    for history in (3, "loss", [1, 2]):
        with pytest.raises(TypeError, match="one dict an epoch"):
            curves(history)
    with pytest.raises(ValueError, match="different lengths"):
        curves({"a": [1, 2], "b": [1]})
    with pytest.raises(ValueError, match="x-axis"):
        curves({"epoch": [1, math.nan], "a": [1, 2]})


# --- histograms -------------------------------------------------------------------------------------


def counts(axes):
    return axes.patches[0].get_data().values


def test_histograms_count_every_value():
    generator = np.random.default_rng(0)
    values = generator.normal(size=(20, 30)).astype(np.float32)
    plot = histograms({"w": kg.tensor(values)}, bins=17)
    assert list(counts(plot.axes[0])) == list(np.histogram(values, 17)[0])
    assert plot.axes[0].get_title().startswith("w\n20×30   ")
    plot = histograms({"w": values}, bins=[-1, 0, 1])
    assert list(counts(plot.axes[0])) == [
        ((values >= -1) & (values < 0)).sum(),
        ((values >= 0) & (values <= 1)).sum(),
    ]
    assert counts(histograms({"w": values}, log=True).axes[0]).min() >= 0.5


def test_nan_and_infinity_are_counted_and_named():
    values = kg.tensor([1.0, 2.0, math.nan, math.inf, -math.inf, 3.0])
    axes = histograms({"w": values}).axes[0]
    assert axes.get_title() == "w\n1 NaN and 2 inf of 6" and counts(axes).sum() == 3
    only = histograms({"w": kg.full((2000,), math.nan)}).axes[0]
    assert only.get_title() == "w\n2,000 NaN of 2,000"
    assert only.texts[0].get_text() == "no finite value"


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(
    "values",
    [
        np.zeros(4), np.full(3, 1e20), np.array(-3.0), np.array([1.0, np.nextafter(1, 2)]),
        np.array([1e-300, 2e-300]), np.arange(5), np.array([True, False]), np.float16([1, 2]), np.zeros(0),
        np.zeros((0, 3)), np.array([-1e300, 1e300]), np.uint8([255]),
    ],
)  # fmt: skip
def test_unusual_values_are_drawn(values, log):
    plot = histograms({"w": values}, log=log)
    assert plot._repr_png_()
    if values.size:
        assert (counts(plot.axes[0]) > 0.5).sum() > 0
        assert counts(plot.axes[0])[counts(plot.axes[0]) > 0.5].sum() == values.size


def test_weights_and_gradients():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    first = lambda plot: [t.split("\n")[0] for t in titles(plot)]  # noqa: E731
    assert first(histograms(model)) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    with pytest.raises(ValueError, match=r"backward\(\) first"):
        histograms(model, "gradients")
    model(kg.rand(5, 3)).sum().backward()
    model[0].bias.grad = None
    plot = histograms(model, "gradients")
    assert plot.axes[1].texts[0].get_text() == "no gradient"
    assert counts(plot.axes[0]).sum() == 12


class Shared(nn.Module):
    """Calls a layer twice, and an LSTM that returns nested tuples."""

    def __init__(self):
        super().__init__()
        self.twice = nn.Linear(4, 4)
        self.lstm = nn.LSTM(4, 3)
        self.seen_grad = None

    def forward(self, x, y):
        self.seen_grad = kg.is_grad_enabled()
        return self.lstm(self.twice(self.twice(x + y))[None])


def test_activations_are_what_the_layers_return():
    kg.manual_seed(0)
    model, x, y = Shared(), kg.randn(5, 4), kg.randn(5, 4)
    got = activations(model, (x, y))
    once = model.twice(x + y)
    np.testing.assert_array_equal(
        got["twice"],
        np.concatenate(
            [once.numpy(force=True).ravel(), model.twice(once).numpy(force=True).ravel()]
        ),
    )
    assert {k: v.shape for k, v in got.items() if k != "twice"} == {
        "lstm[0]": (1, 5, 3), "lstm[1][0]": (1, 5, 3), "lstm[1][1]": (1, 5, 3),
    }  # fmt: skip
    assert model.seen_grad is False
    assert list(activations(nn.Linear(4, 2), x)) == ["Linear"]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_looking_at_activations_changes_nothing(training, fails):
    class Failing(nn.Module):
        def forward(self, x):
            if fails:
                raise KeyError("here")
            return x

    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), Failing())
    model.train(training)
    model[1].train(not training)  # modes need not agree
    before = {k: v.clone() for k, v in model.state_dict().items()}
    random = kg.get_rng_state().clone()
    x = kg.randn(8, 4)
    after_x = kg.get_rng_state().clone()
    assert not kg.equal(random, after_x)
    if fails:
        with pytest.raises(KeyError, match="here"):
            histograms(model, "activations", inputs=x)
    else:
        histograms(model, "activations", inputs=x)
    assert all(kg.equal(v, before[k]) for k, v in model.state_dict().items())
    assert kg.equal(kg.get_rng_state(), after_x)
    assert [m.training for m in model] == [training, not training, training, training]
    assert not any(m._forward_hooks for m in model.modules())
    assert all(p.grad is None for p in model.parameters())


def test_histograms_of_nothing_or_too_much():
    with pytest.raises(ValueError, match="no tensor"):
        histograms(nn.ReLU())
    with pytest.raises(ValueError, match="121 tensors are too many"):
        histograms({str(i): np.zeros(1) for i in range(121)})
    with pytest.raises(ValueError, match="'weights', 'gradients' or 'activations'"):
        histograms(nn.Linear(2, 2), "weight")
    with pytest.raises(ValueError, match="inputs="):
        histograms(nn.Linear(2, 2), "activations")
    with pytest.raises(TypeError, match="a module or a dict"):
        histograms(kg.rand(3))
    with pytest.raises(TypeError, match="histograms: a: expected real numbers"):
        histograms({"a": np.array(["x"])})
    with pytest.raises(ValueError, match="bins must be at least 1"):
        histograms(nn.Linear(2, 2), bins=0)


def test_forty_layers_do_not_overlap():
    layers = [nn.Linear(4, 4) for _ in range(20)]
    names = {f"transformer.encoder.layers.{i}.self_attention.{n}": p
             for i, layer in enumerate(layers) for n, p in layer.named_parameters()}  # fmt: skip
    plot = histograms(names)
    assert len(plot.axes) == 40 == len({title.split("\n")[0] for title in titles(plot)})
    assert not boxes_overlap(plot.figure, [axes.title for axes in plot.axes])


# --- decision boundaries ----------------------------------------------------------------------------


def half_plane(x):
    """One logit: above zero where the first coordinate is."""
    return 4 * x[:, :1]


def shade(plot):
    return np.asarray(plot.axes[0].images[0].get_array())


def test_one_logit():
    x = kg.tensor([[-1.0, 0.0], [1.0, 1.0]])
    plot = decision_boundary(half_plane, x, kg.tensor([0, 1]), resolution=40, margin=0)
    blue, orange = shade(plot)[:, :20, :3], shade(plot)[:, 20:, :3]
    assert (blue == blue[0, 0]).all() and (orange == orange[0, 0]).all()
    assert (blue[0, 0] != orange[0, 0]).any()
    path = plot.axes[0].collections[0].get_paths()[0]
    np.testing.assert_allclose(path.vertices[:, 0], 0, atol=1e-6)
    assert plot.axes[0].get_xlim() == (-1, 1) and plot.axes[0].get_ylim() == (0, 1)


def test_probabilities_and_logits_meet_in_the_same_place():
    x = kg.tensor([[-1.0, 0.0], [2.0, 1.0]])
    logits = decision_boundary(half_plane, x, resolution=30)
    for model in (
        lambda x: half_plane(x).sigmoid(),
        lambda x: half_plane(x).sigmoid()[:, 0],
    ):
        np.testing.assert_allclose(
            shade(decision_boundary(model, x, resolution=30)), shade(logits), atol=1e-6
        )
    # logits that happen to lie within [0, 1]: only the caller can know
    narrow = lambda x: 0.1 * (x[:, 0] > 0).float() + 0.2  # noqa: E731
    as_is = shade(decision_boundary(narrow, x, resolution=10))
    told = shade(decision_boundary(narrow, x, resolution=10, output="logits"))
    assert (as_is[0, 0, :3] != told[0, 0, :3]).any()
    last = nn.Sequential(nn.Linear(2, 1), nn.Sigmoid())
    told = decision_boundary(last, x, resolution=10, output="probabilities")
    np.testing.assert_array_equal(shade(decision_boundary(last, x, resolution=10)), shade(told))


def test_many_classes_are_the_largest_score():
    x = kg.randn(50, 2)
    model = nn.Linear(2, 5)
    plot = decision_boundary(
        model, x, kg.arange(50) % 5, resolution=25, margin=0, labels=list("abcde")
    )
    low, high = x.array.min(0), x.array.max(0)
    sides = [np.linspace(low[i], high[i], 25) for i in (0, 1)]
    grid = np.stack(np.meshgrid(*sides), -1).astype(np.float32)
    winners = model(kg.tensor(grid)).argmax(-1).numpy()
    colors = shade(plot)[..., :3]
    for k in np.unique(winners):
        assert len(np.unique(colors[winners == k], axis=0)) == 1
    assert len(np.unique(colors.reshape(-1, 3), axis=0)) == len(np.unique(winners))
    assert [t.get_text() for t in plot.axes[0].get_legend().get_texts()] == list("abcde")


def test_the_grid_goes_through_in_batches_in_eval_mode():
    calls = []

    class Watched(nn.Module):
        def forward(self, x):
            calls.append((tuple(x.shape), x.dtype, self.training, kg.is_grad_enabled()))
            return x.sum(1)

    model = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(), Watched())
    model[1].eval()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    plot = decision_boundary(model, kg.rand(6, 2).double(), resolution=10, batch_size=30)
    assert calls == [((n, 2), kg.float64, False, False) for n in (30, 30, 30, 10)]
    assert [m.training for m in model] == [True, False, True]
    assert all(kg.equal(v, state[k]) for k, v in model.state_dict().items())
    whole = decision_boundary(model, kg.rand(6, 2), resolution=10)
    assert shade(plot).shape == shade(whole).shape == (10, 10, 4)

    def failing(self, x):
        raise KeyError("here")

    Watched.forward = failing
    with pytest.raises(KeyError):
        decision_boundary(model, kg.rand(6, 2))
    assert [m.training for m in model] == [True, False, True]


def test_where_the_model_is_nan_the_plane_is_white():
    for model in (lambda x: x[:, 0].log(), lambda x: kg.stack([x[:, 0].log(), x[:, 1]], 1)):
        alpha = shade(
            decision_boundary(model, kg.tensor([[-1.0, 0.0], [1.0, 1.0]]), resolution=20)
        )[..., 3]
        assert (alpha[:, :9] == 0).all() and (alpha[:, 12:] > 0).all()
    assert decision_boundary(lambda x: x[:, 0] * math.nan, kg.rand(3, 2), resolution=5)._repr_png_()


@pytest.mark.parametrize(
    "y", [[-1, 1, 1], [[0.0], [1.0], [1.0]], [False, True, True], None, [1, 1, 1]]
)
def test_labels_of_two_classes(y):
    plot = decision_boundary(half_plane, kg.tensor([[-1, 0], [1, 1], [2, 0]]), y, resolution=5)
    if y == [-1, 1, 1]:
        assert [t.get_text() for t in plot.axes[0].get_legend().get_texts()] == ["-1", "1"]
    if y == [1, 1, 1]:
        assert [t.get_text() for t in plot.axes[0].get_legend().get_texts()] == ["1"]
    assert plot._repr_png_()


def test_bad_input_of_a_boundary():
    x, y = kg.rand(4, 2), kg.tensor([0, 1, 0, 1])
    for bad in (kg.rand(4), kg.rand(4, 3), kg.rand(2, 4, 2)):
        with pytest.raises(ValueError, match=r"\(N, 2\)"):
            decision_boundary(half_plane, bad, y)
    for bad in (kg.rand(0, 2), x * math.nan):
        with pytest.raises(ValueError, match="at least one point"):
            decision_boundary(half_plane, bad)
    with pytest.raises(ValueError, match="one class a point"):
        decision_boundary(half_plane, x, y[:3])
    with pytest.raises(ValueError, match="so two classes"):
        decision_boundary(half_plane, x, [0, 1, 2, 0])
    with pytest.raises(ValueError, match=r"y must be 0 … 2; it has 0 … 3"):
        decision_boundary(nn.Linear(2, 3), x, [0, 1, 2, 3])
    with pytest.raises(ValueError, match="gave the shape"):
        decision_boundary(lambda x: x.sum(), x)
    with pytest.raises(ValueError, match="2 classes, but 1 labels"):
        decision_boundary(half_plane, x, y, labels=["a"])
    for setting in ({"resolution": 1}, {"batch_size": 0}, {"margin": -1}, {"output": "logit"}):
        with pytest.raises(ValueError, match=r"must be at least|is one of"):
            decision_boundary(half_plane, x, **setting)


# --- confusion matrices -----------------------------------------------------------------------------


def cells(plot):
    n = math.isqrt(len(plot.axes[0].texts))
    return np.array([t.get_text() for t in plot.axes[0].texts]).reshape(n, n)


def test_confusions_agree_with_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(0)
    true, pred = generator.integers(0, 6, (2, 300))
    got, names = count_confusions(kg.tensor(true), kg.tensor(pred))
    np.testing.assert_array_equal(got, metrics.confusion_matrix(true, pred))
    assert names == list(range(6))
    for normalize in ("true", "pred", "all"):
        shown = confusion_matrix(true, pred, normalize=normalize).axes[0].images[0].get_array()
        np.testing.assert_allclose(shown, metrics.confusion_matrix(true, pred, normalize=normalize))
    order = [4, 1, 0, 2, 3, 5]
    np.testing.assert_array_equal(
        count_confusions(true, pred, order)[0], metrics.confusion_matrix(true, pred, labels=order)
    )


def test_labels_of_a_confusion_matrix():
    true, pred = [0, 1, 1, 2], [0, 1, 2, 2]
    plot = confusion_matrix(true, pred, labels=["cat", "dog", "a horse"])
    assert [t.get_text() for t in plot.axes[0].get_yticklabels()] == ["cat", "dog", "a horse"]
    assert cells(plot).tolist() == [["1", "0", "0"], ["0", "1", "1"], ["0", "0", "1"]]
    strings = confusion_matrix(["b", "a"], ["b", "b"], labels=["b", "a", "c"])
    assert cells(strings).tolist() == [["1", "0", "0"], ["1", "0", "0"], ["0", "0", "0"]]
    assert count_confusions([-1, 1], [1, 1])[1] == [-1, 1]
    assert count_confusions([True], [False])[1] == [0, 1]
    assert count_confusions(kg.tensor([[1.0], [3.0]]), [1, 3])[1] == [1, 3]
    assert count_confusions([], [], ["a", "b"])[0].tolist() == [[0, 0], [0, 0]]


def test_a_finished_matrix():
    plot = confusion_matrix([[12000, 3], [50, 123456]])
    assert cells(plot).tolist() == [["12,000", "3"], ["50", "123,456"]]
    assert cells(confusion_matrix([[0.25, 0.75], [1, 0]])).tolist() == [
        ["0.25", "0.75"],
        ["1", "0"],
    ]
    percent = confusion_matrix([[3, 1], [0, 0]], normalize="true")  # a class without samples
    assert cells(percent).tolist() == [["75.0%", "25.0%"], ["0.0%", "0.0%"]]
    assert confusion_matrix(kg.zeros(1, 1))._repr_png_()


@pytest.mark.parametrize("cmap", ["Blues", "viridis", "gray", "RdYlGn"])
def test_numbers_can_be_read_on_any_background(cmap):
    plot = confusion_matrix(np.arange(16).reshape(4, 4), cmap=cmap)
    image = plot.axes[0].images[0]

    def luminance(rgb):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
        return np.dot([0.2126, 0.7152, 0.0722], linear)

    for value, text in zip(range(16), plot.axes[0].texts, strict=True):
        ground = luminance(image.to_rgba(float(value))[:3])
        ink = {"black": 0.0, "white": 1.0}[text.get_color()]
        contrast = (max(ground, ink) + 0.05) / (min(ground, ink) + 0.05)
        assert contrast >= 4.5  # WCAG 2.1, level AA


@pytest.mark.parametrize("n", [2, 10, 30])
def test_long_names_and_large_numbers_do_not_overlap(n):
    names = [f"a class with a long name {i}" for i in range(n)]
    plot = confusion_matrix(np.full((n, n), 12345), labels=names, title="t")
    assert not boxes_overlap(plot.figure, plot.axes[0].texts)
    assert not boxes_overlap(plot.figure, plot.axes[0].get_yticklabels())
    width, height = plot.figure.bbox.size
    for text in (plot.axes[0].yaxis.label, plot.axes[0].xaxis.label, plot.axes[0].title):
        box = text.get_window_extent()
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
    assert len(confusion_matrix(np.eye(100)).axes[0].texts) == 0


def test_bad_confusions():
    with pytest.raises(ValueError, match="2 true classes, but 1 predictions"):
        confusion_matrix([0, 1], [0])
    with pytest.raises(ValueError, match=r"\(C, C\), got the shape \(2, 3\)"):
        confusion_matrix(np.zeros((2, 3)))
    for bad in ([[1, -1], [0, 1]], [[1.0, math.nan], [0, 1]]):
        with pytest.raises(ValueError, match="finite numbers, none negative"):
            confusion_matrix(bad)
    with pytest.raises(ValueError, match=r"y_pred\.argmax\(1\)"):
        confusion_matrix([0, 1], kg.rand(2, 3))
    with pytest.raises(TypeError, match="integers or strings"):
        confusion_matrix([0.5], [1])
    with pytest.raises(TypeError, match="both"):
        confusion_matrix([1], ["a"])
    with pytest.raises(ValueError, match="'true', 'pred' or 'all'"):
        confusion_matrix([0], [0], normalize="rows")
    with pytest.raises(ValueError, match=r"\[3\] is not among the 2 classes"):
        confusion_matrix([3], [0], labels=["a", "b"])
    with pytest.raises(ValueError, match="2 classes, but 1 labels"):
        confusion_matrix(np.eye(2), labels=["a"])
    with pytest.raises(ValueError, match="twice"):
        confusion_matrix([0], [0], labels=[0, 0])
    with pytest.raises(ValueError, match="no samples"):
        confusion_matrix([], [])


# --- tiles ------------------------------------------------------------------------------------------


def canvas(plot):
    return np.asarray(plot.axes[0].images[0].get_array())


def tiles(plot):
    """How many separate tiles there are, down and across."""
    alpha = canvas(plot)[..., 3]
    runs = lambda used: int((np.diff(np.r_[0, used.astype(int)]) == 1).sum())  # noqa: E731
    return runs(alpha.any(1)), runs(alpha.any(0))


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.Conv2d(1, 16, 5), (4, 4)), (nn.Conv2d(3, 64, 7), (8, 8)), (nn.Conv2d(8, 6, 3), (6, 8)),
        (nn.Conv1d(4, 6, 9), (3, 2)), (nn.ConvTranspose2d(2, 3, 3), (1, 2)), (nn.Conv2d(1, 1, 1), (1, 1)),
        (nn.Conv2d(4, 4, 3, groups=4), (2, 2)), (nn.Conv2d(64, 64, 3), (64, 64)),
    ],
)  # fmt: skip
def test_the_grid_of_filters(layer, expected):
    plot = filters(layer)
    assert tiles(plot) == expected and plot._repr_png_()


def test_filters_have_zero_in_the_middle_and_a_common_scale():
    from matplotlib import colormaps

    weight = np.zeros((2, 1, 1, 2))
    weight[0, 0, 0] = [-4, 4]
    weight[1, 0, 0] = [0, 2]
    colormap = colormaps["RdBu_r"]

    def corners(plot):
        # the two pixels of each of the two tiles, as the colours of their middles
        whole = canvas(plot)
        rows = np.flatnonzero(whole[..., 3].any(1))
        columns = np.flatnonzero(whole[rows[0], :, 3])
        across = np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1)
        below = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
        tops = [b[0] for b in below]
        return [whole[t, c[k], :3] for t in tops for c in across for k in (0, -1)]

    for scale, expected in (("common", (0.0, 1.0, 0.5, 0.75)), ("each", (0.0, 1.0, 0.5, 1.0))):
        got = corners(filters(weight, scale=scale))
        np.testing.assert_allclose(got, [colormap(v)[:3] for v in expected])
    assert len(filters(weight).figure.axes) == 2  # with a colour bar
    assert len(filters(weight, scale="each").figure.axes) == 1


def test_rows_of_a_linear_layer():
    layer = nn.Linear(12, 5)
    assert canvas(filters(layer, shape=(3, 4))).shape[2] == 4
    assert filters(layer.weight, shape=(3, 2, 2), scale="each", columns=5, title="t")._repr_png_()
    assert tiles(filters(layer, shape=(3, 2, 2), columns=5)) == (1, 5)
    with pytest.raises(ValueError, match=r"shape=\(height, width\)"):
        filters(layer)
    with pytest.raises(ValueError, match="does not fit"):
        filters(layer, shape=(3, 3))


def test_what_is_not_finite_is_yellow():
    weight = kg.rand(2, 1, 2, 2)
    weight[0, 0, 0, 0] = math.nan
    weight[1, 0, 1, 1] = math.inf
    for plot in (
        filters(weight),
        filters(weight, scale="each"),
        images(weight),
        images(weight, scale="each"),
    ):
        yellow = (canvas(plot)[..., :3] == (1.0, 0.85, 0.0)).all(-1).sum()
        assert yellow == 2 * 16 * 16
    assert filters(kg.full((3, 3, 2, 2), math.nan))._repr_png_()


def test_constant_filters_and_images():
    for value in (0.0, 1.0, -2.0):
        for scale in ("common", "each"):
            assert filters(kg.full((2, 1, 3, 3), value), scale=scale)._repr_png_()
            assert images(kg.full((2, 3, 3), value), scale=scale)._repr_png_()


def test_bad_filters():
    with pytest.raises(TypeError, match="ReLU has no weight"):
        filters(nn.ReLU())
    for bad in (nn.BatchNorm2d(3), nn.Conv3d(1, 2, 3), kg.zeros(0, 1, 3, 3)):
        with pytest.raises(ValueError, match=r"expected \(O, C, H, W\)"):
            filters(bad)
    with pytest.raises(ValueError, match="it is one of"):
        filters(nn.Conv2d(1, 1, 3), scale="every")
    with pytest.raises(ValueError, match="too many"):
        filters(kg.zeros(200, 100, 1, 1))
    with pytest.raises(ValueError, match="columns must be at least 1"):
        filters(nn.Conv2d(1, 1, 3), columns=0)


def test_images_are_drawn_as_they_are():
    batch = np.random.default_rng(0).integers(0, 256, (6, 3, 32, 40), dtype=np.uint8)
    whole = canvas(images(kg.tensor(batch), columns=3))
    assert tiles(images(kg.tensor(batch), columns=3)) == (2, 3)
    gap = int(np.flatnonzero(whole[..., 3].any(1))[0])
    got = whole[gap : gap + 32, gap : gap + 40, :3]
    np.testing.assert_allclose(got, np.moveaxis(batch[0], 0, 2) / 255)
    for same in (np.moveaxis(batch, 1, 3), batch / np.float32(255)):
        np.testing.assert_allclose(canvas(images(same, columns=3)), whole, atol=1e-6)
    assert tiles(images(batch[:1])) == tiles(images(batch[0, 0])) == (1, 1)
    assert (
        tiles(images(kg.rand(5, 1, 8, 8), columns=5))
        == tiles(images(kg.rand(5, 8, 8), columns=5))
        == (1, 5)
    )
    assert images(kg.rand(2, 4, 4) > 0.5)._repr_png_()


@pytest.mark.parametrize("shape", [(1, 200), (200, 1), (3, 100), (1, 1)])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_images_of_any_proportion(shape, count):
    plot = images(kg.rand(count, *shape), titles=range(count))
    down, across = tiles(plot)
    assert down * across >= count and plot._repr_png_()


def test_titles_of_images():
    plot = images(kg.rand(3, 8, 8), titles=[kg.tensor(7), 2.5, "a bird"])
    assert [t.get_text() for t in plot.axes[0].texts] == ["7", "2.5", "a bird"]
    with pytest.raises(ValueError, match="3 images, but 2 titles"):
        images(kg.rand(3, 8, 8), titles="ab")


@pytest.mark.parametrize("count", [4, 30])
def test_titles_do_not_overlap(count):
    plot = images(
        kg.rand(count, 8, 8), titles=[f"this is a long title for image {i}" for i in range(count)]
    )
    assert not boxes_overlap(plot.figure, plot.axes[0].texts)


def test_bad_images():
    for bad in (kg.rand(3), kg.rand(2, 5, 4, 4), kg.rand(0, 4, 4), kg.rand(1, 2, 3, 4, 5)):
        with pytest.raises(ValueError, match=r"images: expected"):
            images(bad)
    with pytest.raises(ValueError, match="scale='common'"):
        images(kg.randn(2, 4, 4) * 50)
    with pytest.raises(ValueError, match="it is None, 'common' or 'each'"):
        images(kg.rand(2, 4, 4), scale="all")
    with pytest.raises(ValueError, match="too many"):
        images(kg.zeros(20000, 1, 1))


def test_looking_from_inside_of_a_lazy_block_decides_nothing():
    model = kg.nn.Sequential(kg.nn.Linear(2, 4), kg.nn.Tanh(), kg.nn.Linear(4, 2))
    x, classes = kg.randn(20, 2), kg.tensor([0, 1] * 10)
    with kg.Graph() as g:
        y = model(x)
        steps = len(g)
        kg.viz.decision_boundary(model, x, classes, resolution=20)
        kg.viz.activations(model, x)
        kg.viz.histograms(model)
        assert len(g) == steps
        kg.viz.confusion_matrix(classes, y.argmax(1))
        assert not g._recorder.decisions
    kept = y.tolist()
    x.fill_(0)
    assert y.tolist() != kept  # and no value was "another one"
