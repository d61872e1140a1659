"""Pictures: of graphs, of models, of numbers.

``graph(fn, *args)`` draws what a function computes, ``tensor.draw_graph()`` what ``backward()`` will
walk, ``model.plot(x)`` the layers of a model; each returns a :class:`Drawing`. ``curves``,
``histograms``, ``decision_boundary``, ``confusion_matrix``, ``filters`` and ``images`` show numbers; each
returns a :class:`Plot`.
"""

from kilograd.viz.boundary import decision_boundary
from kilograd.viz.confusion import confusion_matrix, count_confusions
from kilograd.viz.distributions import activations, histograms
from kilograd.viz.drawing import Drawing
from kilograd.viz.picture import Plot
from kilograd.viz.program import graph, plot
from kilograd.viz.tape import draw_graph, formula
from kilograd.viz.tiles import filters, images
from kilograd.viz.training_curves import curves
