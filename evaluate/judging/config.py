"""What a judgement is: which answers, to which questions, by which endpoint, in which way."""

from typing import Literal

from pydantic import Field

from ...store.config import Config
from ...store.usage import MAX_REFUSED
from ..remote.config import EndpointConfig

# the released script's
OFFICIAL_TEMPERATURE = 0.2


class JudgeConfig(Config):
    """Answers to open questions, each judged beside its reference by a language model that reads no pictures."""

    endpoint: EndpointConfig = Field(description="The judge.")
    answers: str = Field(description="JSON lines with question_id and text, as LLaVA's scripts write them.")
    files: str = Field(description="The folder with questions.jsonl, answers_gpt4.jsonl and context.jsonl.")
    compat: Literal["official"] | None = Field(
        None,
        description="official: as the released script does it: the reference is Assistant 1, one order alone, and what it "
        "cannot read counts as −1 for both. Null: both orders, and what cannot be read counts for nobody.",
    )
    system: str | None = Field(
        None, description="A file with the judge's system text, in the place of evaluate/judging/prompts/system.txt."
    )
    rule: str | None = Field(
        None, description="A file with the rule of scoring, in the place of evaluate/judging/prompts/rule.txt."
    )
    temperature: float | None = Field(
        None, ge=0, le=2, description="Of the judge; null is 0, and 0.2 in the official way."
    )
    max_tokens: int = Field(1024, ge=8, description="Tokens of a judge's text at most.")
    max_asks: int = Field(
        3,
        ge=1,
        le=20,
        description="How often a judge is asked whose text has no scores, each time with another seed and a temperature of "
        "0.2 at least; the official way asks once.",
    )
    max_refused: float = Field(
        MAX_REFUSED,
        ge=0,
        le=1,
        description="The share of questions without scores before the judgement fails; the official way has no limit.",
    )
    seed: int = Field(0, description="Of the draws behind the intervals.")

    @property
    def heat(self) -> float:
        """The temperature that is used."""
        if self.temperature is not None:
            return self.temperature
        return 0.0 if self.compat is None else OFFICIAL_TEMPERATURE
