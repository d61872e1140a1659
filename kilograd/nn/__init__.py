"""Layers, losses and containers, under PyTorch's names."""

from kilograd.nn import functional as functional
from kilograd.nn import init as init
from kilograd.nn import utils as utils
from kilograd.nn.activation import *
from kilograd.nn.container import *
from kilograd.nn.conv import *
from kilograd.nn.dropout import *
from kilograd.nn.linear import *
from kilograd.nn.loss import *
from kilograd.nn.module import Module as Module
from kilograd.nn.norm import *
from kilograd.nn.padding import *
from kilograd.nn.parameter import Buffer as Buffer
from kilograd.nn.parameter import Parameter as Parameter
from kilograd.nn.parameter import UninitializedBuffer as UninitializedBuffer
from kilograd.nn.parameter import UninitializedParameter as UninitializedParameter
from kilograd.nn.pool import *
from kilograd.nn.rnn import *
from kilograd.nn.sparse import *
from kilograd.nn.transformer import *
from kilograd.nn.vision import *
