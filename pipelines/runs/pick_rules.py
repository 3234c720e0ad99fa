"""`pick` of a selector in a run: one rule in place of the method's own, or a list, which is a choice for each."""

from typing import Any

from ...store.errors import InputError

# in a list: the method's own way to pick, under the selector's own label
OWN = "own"


def expanded(values: dict[str, Any]) -> dict[str, Any]:
    """Return a run's plain values with a selector for each rule of a `pick` that is a list, labelled LABEL-RULE.

    A rule is its name, or `{rule, config, label}`. What is no list of mappings is left to be refused.

    Raises:
        InputError: a list is empty.
    """
    sections = values.get("selectors")
    if not isinstance(sections, list):
        return values
    return values | {"selectors": [one for number, s in enumerate(sections) for one in _each(s, number)]}


def _each(section: Any, number: int) -> list[Any]:
    if not isinstance(section, dict) or "pick" not in section:
        return [section]
    rules, common = section["pick"], {k: v for k, v in section.items() if k != "pick"}
    if not isinstance(rules, list):
        return [_one(common, rules)]
    if not rules:
        raise InputError(
            f"selectors.{number}.pick is an empty list, and then nothing is picked: name a rule, or `{OWN}`."
        )
    label = common.get("label") or common.get("name")
    return [_one(common | {"label": _label(label, rule)}, rule) for rule in rules]


def _one(section: dict[str, Any], rule: Any) -> dict[str, Any]:
    if rule is None or _name(rule) == OWN:
        return section
    if isinstance(rule, dict):
        return section | {"pick": {k: v for k, v in rule.items() if k != "label"}}
    return section | {"pick": {"rule": rule}}


def _label(label: Any, rule: Any) -> Any:
    if isinstance(rule, dict) and "label" in rule:
        return rule["label"]
    return label if rule is None or _name(rule) == OWN else f"{label}-{_name(rule)}"


def _name(rule: Any) -> Any:
    return rule.get("rule") if isinstance(rule, dict) else rule
