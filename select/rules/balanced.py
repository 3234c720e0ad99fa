"""The budget split over groups evenly, small groups whole, the best rows of each."""

from ..pickers import water_fill
from ._grouped import Grouped


class Balanced(Grouped):
    """Evenly over groups, the best rows of each; groups smaller than their share are taken whole."""

    name = "balanced"
    split = staticmethod(water_fill)


RULE = Balanced
