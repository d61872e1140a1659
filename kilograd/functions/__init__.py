"""The public functions, under PyTorch's names: each validates its arguments and calls ops."""

from kilograd.functions import creation, elementwise, index, linalg, reduce, sampling, shape
from kilograd.functions.creation import *
from kilograd.functions.elementwise import *
from kilograd.functions.index import *
from kilograd.functions.linalg import *
from kilograd.functions.reduce import *
from kilograd.functions.sampling import *
from kilograd.functions.shape import *
from kilograd.tensor import Tensor

__all__ = ["Tensor"]
__all__ += creation.__all__
__all__ += elementwise.__all__
__all__ += index.__all__
__all__ += linalg.__all__
__all__ += reduce.__all__
__all__ += sampling.__all__
__all__ += shape.__all__
