"""Native versions of whole ops, for the compiler's table of twins.

``kernels/native`` stands below ``ops`` and cannot name them; here the two meet.
"""

from __future__ import annotations

from kilograd.kernels.native import recurrent
from kilograd.kernels.native.plan import TWINS
from kilograd.ops import rnn

TWINS[rnn.rnn.forward] = recurrent.rnn
TWINS[rnn.lstm.forward] = recurrent.lstm
TWINS[rnn.gru.forward] = recurrent.gru
TWINS[rnn.rnn.derivatives[0].rule] = recurrent.rnn_gradient
TWINS[rnn.lstm.derivatives[0].rule] = recurrent.lstm_gradient
TWINS[rnn.gru.derivatives[0].rule] = recurrent.gru_gradient
