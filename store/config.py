"""The base of every config: frozen, no unknown fields, and errors that name the nearest right field."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any, Self, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from .errors import InputError, suggest
from .reading import shown, wrong


class Config(BaseModel):
    """A frozen config that lives beside what it configures; an unknown field is an error with a suggestion."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @classmethod
    def parse(cls, values: dict[str, Any], where: str = "") -> Self:
        """Build the config from plain values (YAML, `--set`).

        Raises:
            InputError: names every wrong field, where it stands, and the nearest right one.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise InputError("\n".join(_explain(cls, e, where, values) for e in error.errors())) from error
        except (RecursionError, OverflowError) as error:
            raise InputError(f"{where or cls.__name__} cannot be read: {wrong(error)}.") from error

    @classmethod
    def variant(cls, values: dict[str, Any]) -> type["Config"]:
        """Return the class that reads these values: this one, unless one of their fields says which."""
        return cls


class Section(Config):
    """A config that is saved and hashed as it was written: the fields that were named, numbers as they were spelled."""

    _written: dict[str, Any] = PrivateAttr(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _keep(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        section = handler(values)
        if isinstance(values, dict):
            section._written = {n: copy.deepcopy(v) for n, v in values.items() if n in cls.model_fields}
        return section

    @model_serializer(mode="wrap")
    def _as_written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values = handler(self)
        names = [*self._written, *(n for n in values if n in self.model_fields_set and n not in self._written)]
        return {n: copy.deepcopy(self._written.get(n, values[n])) for n in names if n in values}

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy in which other fields are written."""
        section = super().model_copy(update=update, deep=deep)
        section._written = {n: v for n, v in self._written.items() if n not in (update or {})}
        return section


def _explain(model: type[Config], error: Any, where: str, values: Any) -> str:
    path = [str(p) for p in error["loc"]]
    field_path = ".".join([where, *path] if where else path) or where or model.__name__
    if error["type"] == "extra_forbidden":
        owner = _owner(model, error["loc"][:-1], values)
        return f"unknown field {field_path!r}{suggest(path[-1], owner.model_fields if owner else [])}"
    if error["type"] == "missing":
        owner = _owner(model, error["loc"][:-1], values) or model
        return f"{field_path!r} is required: {owner.__name__} cannot do without it."
    received = f" (given: {shown(error['input'])})" if not isinstance(error["input"], dict) else ""
    return f"{field_path}: {error['msg']}{received}."


def _owner(model: type[BaseModel], path: tuple[str | int, ...], values: Any) -> type[BaseModel] | None:
    """Return the model that reads what stands at `path` of the values; a place in a list is its items' model."""
    model, keyed = _variant(model, values), False
    for name in path:
        values = _inside(values, name)
        if keyed:  # a name in a mapping, whose values' model it is
            keyed = False
        elif isinstance(name, str):
            field = model.model_fields.get(name)
            nested = [] if field is None else list(_models_in(field.annotation))
            if not nested:
                return None
            model, keyed = nested[0], field is not None and _maps(field.annotation)
        model = _variant(model, values)
    return model


def _maps(annotation: Any) -> bool:
    return any(get_origin(inner) is dict for inner in (annotation, *get_args(annotation)))


def _variant(model: type[BaseModel], values: Any) -> type[BaseModel]:
    return model.variant(values) if issubclass(model, Config) and isinstance(values, dict) else model


def _inside(values: Any, name: str | int) -> Any:
    try:
        return values[name]
    except (LookupError, TypeError):  # a model that was given whole
        return None


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)
