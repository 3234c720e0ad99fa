"""The letter of an option, read more strictly than LLaVA's script does, of up to 26."""

from ..benchmark import OptionLetter
from ..metrics import option_letter


class Letter(OptionLetter):
    """For options that a pool lists as A., B., …"""

    name, read = "option_letter", option_letter


BENCHMARK = Letter
