"""Chat templates of the forms that models' folders hold, in short, and tokenizers trained on the spot for them."""

from dataclasses import dataclass
from typing import Any

from pool.conftest import byte_core, llama_core
from tokenizers import AddedToken, processors
from transformers import PreTrainedTokenizerFast

QWEN2_5_VL = (
    "{% set image_count = namespace(value=0) %}{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}"
    "{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content %}{% set image_count.value = image_count.value + 1 %}"
    "{% if add_vision_id %}Picture {{ image_count.value }}: {% endif %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN3_VL = """{%- macro said(content) %}
    {%- if content is string %}{{- content }}{%- else %}
        {%- for item in content %}
            {%- if item.type == 'image' or 'image' in item %}
                {{- '<|vision_start|><|image_pad|><|vision_end|>' }}
            {%- elif 'text' in item %}{{- item.text }}{%- endif %}
        {%- endfor %}
    {%- endif %}
{%- endmacro %}
{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + said(messages[0].content) + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + said(message.content) + '<|im_end|>' + '\\n' }}
    {%- elif message.role == 'assistant' %}
        {{- '<|im_start|>' + message.role + '\\n' + said(message.content) }}
        {%- if message.tool_calls %}{{- message.tool_calls | tojson }}{%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""
GEMMA3 = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}{%- set first = messages[0]['content'] + '\n\n' -%}
    {%- else -%}{%- set first = messages[0]['content'][0]['text'] + '\n\n' -%}{%- endif -%}
    {%- set turns = messages[1:] -%}
{%- else -%}{%- set first = '' -%}{%- set turns = messages -%}{%- endif -%}
{%- for message in turns -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
    {%- endif -%}
    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
    {{ '<start_of_turn>' + role + '\n' + (first if loop.first else '') }}
    {%- if message['content'] is string -%}{{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}{{ '<start_of_image>' }}
            {%- elif item['type'] == 'text' -%}{{ item['text'] | trim }}{%- endif -%}
        {%- endfor -%}
    {%- else -%}{{ raise_exception('Invalid content type') }}{%- endif -%}
    {{ '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}
"""
SMOLVLM = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
_PICTURES_FIRST = (
    "{% for item in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
)
_TEXTS = "{% for item in message['content'] | selectattr('type', 'equalto', 'text') %}"
NEXT_VICUNA = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{ message['content'][0]['text'] + ' ' }}"
    "{% else %}{{ message['role'].upper() + ': ' }}{% endif %}" + _PICTURES_FIRST + "{% if message['role'] == 'user' %}"
    f"{_TEXTS}{{{{ item['text'] + ' ' }}}}{{% endfor %}}{{% elif message['role'] == 'assistant' %}}{_TEXTS}"
    "{% generation %}{{ item['text'] + ' ' }}{% endgeneration %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
NEXT_MISTRAL = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' }}" + _PICTURES_FIRST + f"{_TEXTS}"
    "{{ item['text'] }}{% endfor %}{{' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    f"{_TEXTS}{{% generation %}}{{{{ ' ' + item['text'] + '</s> ' }}}}{{% endgeneration %}}{{% endfor %}}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
ONEVISION = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + ' '}}"
    "{% for item in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>' }}{% endfor %}"
    "{% if message['role'] != 'assistant' %}" + _TEXTS + "{{ '\n' + item['text'] }}{% endfor %}{% else %}" + _TEXTS + ""
    "{% generation %}{{ '\n' + item['text'] }}{% endgeneration %}{% endfor %}{% endif %}{{'<|im_end|>'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
INTERNVL = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n'}}{% if message['content'] is string %}"
    "{{ message['content'] }}{% else %}{% for item in message['content'] %}{% if item['type'] == 'image' %}"
    "{{ '<IMG_CONTEXT>\n' }}{% elif item['type'] == 'text' %}{{ item['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{'<|im_end|>\n'}}{% endfor %}{% if add_generation_prompt %}{{'<|im_start|>assistant\n' }}{% endif %}"
)
# contents are texts: a list would be written as one
STRINGS = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
)
# an answer's thoughts are kept in the last turn alone, as in Qwen3
THINKING = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% if message.role == 'assistant' and loop.last %}"
    "<think>\n\n</think>\n\n{% endif %}{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

CHATML = ("<|im_start|>", "<|im_end|>")
VISION = ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>")


class OneToken:
    """The reader of pictures that become the tokens of their mark, as before Hugging Face's processors expand it."""

    fixed, image_mode = 1, "pad"

    def __init__(self, tokenizer: Any, mark: str, around: tuple[str, str] = ("", "")) -> None:
        self.tokenizer, self.mark, self.around = tokenizer, mark, around
        self._ids = tokenizer(mark, add_special_tokens=False)["input_ids"]
        self.image_id = self._ids[len(self._ids) // 2]

    def ids(self, size: Any) -> list[int]:
        return list(self._ids)

    def among(self, count: int) -> "OneToken":
        return self

    def prepare(self, picture: Any) -> dict[str, Any]:
        return {}

    def finish(self, media: dict[str, Any]) -> dict[str, Any]:
        return media


@dataclass(frozen=True)
class Form:
    """A chat template, a picture's mark, the tokenizer's kind and special tokens; `bos`: it puts one in front."""

    template: str
    mark: str
    core: str
    specials: tuple[str, ...]
    bos: bool = False

    def tokenizer(self, template: str | None = None) -> Any:
        """Return a tokenizer with the chat template, or another one."""
        by_bytes = self.core == "bytes"
        core = byte_core() if by_bytes else llama_core(self.core)
        specials = [AddedToken(t, special=True, normalized=False) for t in self.specials]
        core.add_tokens(specials)
        if self.bos:
            core.post_processor = processors.TemplateProcessing(
                single="<s> $A", special_tokens=[("<s>", core.token_to_id("<s>"))]
            )
        names = {} if by_bytes else {"bos_token": "<s>", "unk_token": "<unk>"}
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", pad_token="<pad>", **names)
        tokenizer.chat_template = template or self.template
        return tokenizer


FORMS = {
    "qwen2_5_vl": Form(QWEN2_5_VL, "".join(VISION), "bytes", (*CHATML, *VISION)),
    "qwen3_vl": Form(QWEN3_VL, "".join(VISION), "bytes", (*CHATML, *VISION)),
    "gemma3": Form(GEMMA3, "<start_of_image>", "gemma", ("<start_of_turn>", "<end_of_turn>", "<start_of_image>"), True),
    "smolvlm": Form(SMOLVLM, "<image>", "bytes", ("<image>", "<|im_start|>", "<end_of_utterance>")),
    "next_vicuna": Form(NEXT_VICUNA, "<image>", "metaspace-first", ("<image>",), True),
    "next_mistral": Form(NEXT_MISTRAL, "<image>", "metaspace-always", ("<image>",), True),
    "next_mistral_old": Form(NEXT_MISTRAL, "<image>", "normalizer", ("<image>",), True),
    "onevision": Form(ONEVISION, "<image>", "bytes", ("<image>", *CHATML)),
    "internvl": Form(INTERNVL, "<IMG_CONTEXT>", "bytes", ("<IMG_CONTEXT>", *CHATML)),
    "strings": Form(STRINGS, "<image>", "metaspace-first", ("<image>",), True),
}
