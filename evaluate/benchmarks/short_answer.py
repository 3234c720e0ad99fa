"""LLaVA's short-answer prompt behind the question; correct is the reference itself."""

from ..benchmark import SHORT, SameAnswer


class ShortAnswer(SameAnswer):
    """As LLaVA asks VQAv2, GQA and TextVQA."""

    name, suffix = "short_answer", SHORT


BENCHMARK = ShortAnswer
