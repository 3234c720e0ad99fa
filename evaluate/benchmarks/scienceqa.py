"""ScienceQA's letters, read as LLaVA's own script reads them (`eval_science_qa.py`)."""

from ..benchmark import OptionLetter
from ..metrics import scienceqa_letter


class ScienceQA(OptionLetter):
    """Comparable with published figures."""

    name, read = "scienceqa", scienceqa_letter


BENCHMARK = ScienceQA
