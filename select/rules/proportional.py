"""The budget split over groups by their sizes (largest remainders), the best rows of each."""

from ..pickers import proportional
from ._grouped import Grouped


class Proportional(Grouped):
    """Over groups by their sizes, the best rows of each."""

    name = "proportional"
    split = staticmethod(proportional)


RULE = Proportional
