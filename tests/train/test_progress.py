"""Progress bars are drawn for people only, and never change what is iterated."""

import io
import sys
import types

import numpy as np
import pytest

import kilograd as kg
from kilograd.train.progress import progress
from kilograd.utils.data import DataLoader, TensorDataset


class Screen(io.StringIO):
    """A standard error that says it is a terminal."""

    def isatty(self):
        return True


def terminal(monkeypatch):
    """In place of a fixture: pytest puts its own standard error back before the test begins."""
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    return screen


@pytest.fixture(params=["tqdm", "rich", None])
def backend(request):
    if request.param is not None:
        pytest.importorskip(request.param)
    return request.param


def test_nothing_is_drawn_where_nobody_looks(monkeypatch, backend):
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stderr", pipe)
    bar = progress(range(5), desc="x", backend=backend, loss=1.0)
    assert list(bar) == [0, 1, 2, 3, 4]
    monkeypatch.setattr(sys, "stderr", None)  # as under pythonw
    assert list(progress(range(2))) == [0, 1]
    assert pipe.getvalue() == ""


def test_items_pass_through_as_they_are(monkeypatch, backend):
    terminal(monkeypatch)
    items = [object() for _ in range(5)]
    for made in (items, tuple(items), iter(items), (x for x in items)):
        assert all(a is b for a, b in zip(progress(made, backend=backend), items, strict=True))
    bar = progress(items, backend=backend)
    assert list(bar) == items and list(bar) == items  # again, now without a bar
    assert list(progress([], backend=backend)) == []


def test_length_is_the_iterable_s(monkeypatch):
    terminal(monkeypatch)
    assert len(progress([1, 2, 3])) == 3 and len(progress(iter([1]), total=7)) == 7
    loader = DataLoader(TensorDataset(kg.rand(10, 2)), batch_size=4)
    assert len(progress(loader)) == len(loader) == 3
    with pytest.raises(TypeError, match="has no len"):
        len(progress(iter([1])))
    assert progress([])  # it is a bar, though an empty one


@pytest.mark.parametrize("name", ["tqdm", "rich"])
def test_the_bar_shows_what_it_is_told(monkeypatch, name):
    screen = terminal(monkeypatch)
    pytest.importorskip(name)
    bar = progress(range(4), desc="epoch 1/[3]", backend=name, lr=0.1)
    bar._bar.bar.refresh()
    for i in bar:
        bar.set_postfix(
            loss=kg.tensor(1.23456789, requires_grad=True), acc=np.float32(0.5), n=i, s="a"
        )
        if i == 2:
            bar.set_description("half")
        bar._bar.bar.refresh()
    text = screen.getvalue()
    assert "epoch 1/[3]" in text and "half" in text and "4/4" in text and "lr=0.1" in text
    assert "loss=1.235, acc=0.5, n=3, s=a" in text


@pytest.mark.parametrize("name", ["tqdm", "rich"])
@pytest.mark.parametrize("how", ["end", "break", "raise", "with"])
def test_the_bar_is_closed(monkeypatch, name, how):
    terminal(monkeypatch)
    pytest.importorskip(name)
    closed = []

    def watched(bar):
        close = bar._bar.close
        bar._bar.close = lambda: (closed.append(1), close())
        return bar

    bar = watched(progress(range(4), backend=name))
    if how == "end":
        for _ in bar:
            pass
    elif how == "break":
        for i in bar:
            if i == 1:
                break
    elif how == "raise":
        with pytest.raises(KeyError):
            for _ in bar:
                raise KeyError
    else:
        with bar:
            bar.update(2)
    assert closed == [1] and bar._bar is None
    bar.close()
    bar.update()
    bar.set_postfix(a=1)
    bar.set_description("b")
    assert closed == [1]


def test_an_error_of_the_iterable_passes_through(monkeypatch, backend):
    terminal(monkeypatch)

    def failing():
        yield 1
        raise KeyError("inside")

    seen = []
    with pytest.raises(KeyError, match="inside"):
        seen.extend(progress(failing(), backend=backend))


def test_updates_by_hand(monkeypatch):
    terminal(monkeypatch)
    pytest.importorskip("tqdm")
    with progress(total=10, backend="tqdm") as bar:
        bar.update(3)
        bar.update()
        assert bar._bar.bar.n == 4
    with pytest.raises(TypeError, match="without an iterable"):
        next(iter(progress(total=3)))


def test_forced_and_forbidden(monkeypatch, backend):
    screen = terminal(monkeypatch)
    assert list(progress(range(3), show=False, backend=backend)) == [0, 1, 2]
    assert screen.getvalue() == ""
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stderr", pipe)
    list(progress(range(3), show=True, backend=backend or "tqdm", desc="forced"))
    assert "forced" in pipe.getvalue()


def test_a_finished_bar_may_go_away(monkeypatch):
    screen = terminal(monkeypatch)
    pytest.importorskip("tqdm")
    list(progress(range(3), leave=False, backend="tqdm"))
    left = screen.getvalue()
    list(progress(range(3), leave=True, backend="tqdm"))
    assert not left.endswith("\n") and screen.getvalue().endswith("\n")


def test_without_tqdm_it_is_rich_and_without_both_nothing(monkeypatch):
    screen = terminal(monkeypatch)
    pytest.importorskip("rich")
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert list(progress(range(3), desc="by rich")) == [0, 1, 2]
    assert "by rich" in screen.getvalue()
    with pytest.raises(ImportError, match="pip install tqdm"):
        progress(range(3), backend="tqdm")
    for module in ("rich.console", "rich.progress"):
        monkeypatch.setitem(sys.modules, module, None)
    before = screen.getvalue()
    bar = progress(range(3), loss=1)
    for _ in bar:
        bar.set_postfix(loss=kg.tensor(2.0))
    assert screen.getvalue() == before and len(bar) == 3


def test_in_a_notebook_it_is_tqdm_s_own_choice(monkeypatch):
    tqdm = pytest.importorskip("tqdm")
    shell = types.SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    made = []

    class Widget(tqdm.tqdm):
        def __init__(self, *args, **kwargs):
            made.append(kwargs)
            super().__init__(*args, file=io.StringIO(), **kwargs)

    monkeypatch.setitem(sys.modules, "tqdm.auto", types.SimpleNamespace(tqdm=Widget))
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stderr", pipe)  # no terminal, and yet somebody looks
    assert list(progress(range(3), desc="cell")) == [0, 1, 2]
    assert [m["desc"] for m in made] == ["cell"] and made[0]["total"] == 3


def test_bad_arguments():
    with pytest.raises(ValueError, match="'tqdm', 'rich' or None"):
        progress([1], backend="bar")
    with pytest.raises(ValueError, match="must not be negative"):
        progress([1], total=-1)
    with pytest.raises(TypeError):
        list(progress(3))


def test_postfix_never_changes_the_tensor(monkeypatch):
    terminal(monkeypatch)
    loss = kg.tensor(2.0, requires_grad=True)
    bar = progress(range(1), backend=None)
    for _ in bar:
        bar.set_postfix(loss=loss * 1, many=kg.rand(3), none=None)
    loss.backward()
    assert loss.grad.item() == 1
