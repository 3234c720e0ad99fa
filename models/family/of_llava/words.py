"""Which conversation template goes with a LLaVA whose folder has a chat template of its own."""

from typing import Any

from ....pool.own_template import OwnTemplate
from ....pool.templates import OWN
from ....store.errors import InputError
from .llms import fitting_template

_ASKED = [{"from": "human", "value": "what?"}, {"from": "gpt", "value": "this"}]


def template_of(config: Any, tokenizer: Any, mark: str) -> str:
    """Return `own` where the folder's chat template ends answers, else the decoder's (`llms.fitting_template`).

    Many folders' templates are for asking alone: they leave the end of an answer out of what is trained, write it as plain
    text, or write a history in another way than its prompt. A model that is trained so does not learn to stop.
    """
    return OWN if _ends_answers(tokenizer, mark) else fitting_template(config, tokenizer)


def _ends_answers(tokenizer: Any, mark: str) -> bool:
    if not getattr(tokenizer, "chat_template", None):
        return False
    try:
        template = OwnTemplate(tokenizer, mark)
        whole, prompt = template.segments(_ASKED, False), template.prompt(_ASKED, False)
    except InputError:
        return False
    trained = [s for s in whole if s.trained]
    begins = "".join(s.text for s in whole).startswith("".join(s.text for s in prompt))
    return begins and bool(trained) and trained[-1].kind == "token"
