"""Draws the pictures of the documentation when it is built, into ``_generated`` (which git ignores)."""

from pathlib import Path

import kilograd as kg
from kilograd import nn

PLACE = Path(__file__).parents[1] / "_generated"


def draw(app):
    """The pictures of drawing.md."""
    PLACE.mkdir(exist_ok=True)
    kg.manual_seed(0)
    x = kg.tensor([1.0, 2.0], requires_grad=True)
    with kg.retain_grads():
        z = ((x * 3).exp() + x).sum()
        z.backward(retain_graph=True)
    z.draw_graph(names={"x": x}).save(PLACE / "tape.svg")
    model = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 1))
    optimizer = kg.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def step(x, y):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    kg.viz.graph(step, kg.randn(8, 2), kg.randn(8, 1), time=False).save(PLACE / "step.svg")
    model.plot(input_size=(8, 2)).save(PLACE / "plot.svg")


def setup(app):
    """Sphinx calls this."""
    app.connect("builder-inited", draw)
    return {"parallel_read_safe": True}
