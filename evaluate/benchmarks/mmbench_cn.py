"""MMBench in Chinese: the same questions and rules, asked in Chinese for the option's letter, as LLaVA asks."""

from ...pool.records import Record
from .mmbench import MMBench

LETTER_CN = "\n请直接回答选项字母。"


class MMBenchCN(MMBench):
    """Its table lies beside the English one, or alone."""

    name, suffix = "mmbench_cn", LETTER_CN
    files = "mmbench_dev_cn_….tsv or mmbench_test_cn_….tsv"
    chinese = True
    example = Record(
        0,
        "mmbench_cn",
        "mmbench_cn",
        (),
        [{"from": "human", "value": f"是什么？\nA. 猫\nB. 狗{LETTER_CN}"}, {"from": "gpt", "value": "B"}],
        {"choices": ["猫", "狗"]},
    )


BENCHMARK = MMBenchCN
