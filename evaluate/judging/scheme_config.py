"""What ScienceQA with a language model is: whose answers, in which of the paper's two ways, by which endpoint."""

from typing import Literal

from pydantic import Field

from ...store.config import Config
from ...store.usage import MAX_REFUSED
from ..remote.config import EndpointConfig

COMPLEMENT, JUDGE = "complement", "judge"


class SchemeConfig(Config):
    """ScienceQA's questions, answered by a model and by a language model that reads no pictures."""

    endpoint: EndpointConfig = Field(description="The language model, which is the judge, too.")
    evaluation: str = Field(description="The model's evaluation: its folder, with scienceqa's evals.parquet.")
    pool: str | None = Field(None, description="The POOL of its questions; null is EVALUATION/pool.")
    scheme: Literal["complement", "judge"] = Field(
        description="complement: the language model's answer, the model's where it has none; judge: where the two differ, "
        "the language model is asked again, with the question and both.",
        examples=["judge"],
    )
    system: str | None = Field(
        None, description="A file with the system text, in the place of evaluate/judging/prompts/second_system.txt."
    )
    answer_rule: str | None = Field(
        None, description="A file that says how to answer, in the place of evaluate/judging/prompts/second_rule.txt."
    )
    final_rule: str | None = Field(
        None, description="A file that says how to judge, in the place of evaluate/judging/prompts/final_rule.txt."
    )
    temperature: float = Field(0.0, ge=0, le=2, description="Of the language model.")
    max_tokens: int = Field(1024, ge=8, description="Tokens of a text at most.")
    max_refused: float = Field(
        MAX_REFUSED,
        ge=0,
        le=1,
        description="The share of questions, which count as wrong, to which the endpoint may bring nothing.",
    )
