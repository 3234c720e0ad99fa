"""The one name for a numpy array. Shape and type stand in a variable's name (`grads_NK`) and in docstrings."""

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
