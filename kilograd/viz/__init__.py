"""Pictures: of graphs, of models, of numbers.

``graph(fn, *args)`` draws what a function computes, ``tensor.draw_graph()`` what ``backward()`` will
walk, ``model.plot(x)`` the layers of a model. Each returns a :class:`Drawing`.
"""

from kilograd.viz.drawing import Drawing
from kilograd.viz.program import graph, plot
from kilograd.viz.tape import draw_graph, formula
