"""Optimizers and learning-rate schedules, under PyTorch's names."""

from kilograd.optim import lr_scheduler as lr_scheduler
from kilograd.optim.adadelta import Adadelta as Adadelta
from kilograd.optim.adafactor import Adafactor as Adafactor
from kilograd.optim.adagrad import Adagrad as Adagrad
from kilograd.optim.adam import Adam as Adam
from kilograd.optim.adam import AdamW as AdamW
from kilograd.optim.adamax import Adamax as Adamax
from kilograd.optim.asgd import ASGD as ASGD
from kilograd.optim.lbfgs import LBFGS as LBFGS
from kilograd.optim.muon import Muon as Muon
from kilograd.optim.nadam import NAdam as NAdam
from kilograd.optim.optimizer import Optimizer as Optimizer
from kilograd.optim.radam import RAdam as RAdam
from kilograd.optim.rmsprop import RMSprop as RMSprop
from kilograd.optim.rprop import Rprop as Rprop
from kilograd.optim.sgd import SGD as SGD
