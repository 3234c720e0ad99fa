"""The base of every config: frozen, no unknown fields, and errors that name the nearest right field."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

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
            raise InputError("\n".join(_explain(cls, e, where) for e in error.errors())) from error
        except (RecursionError, OverflowError) as error:
            raise InputError(f"{where or cls.__name__} cannot be read: {wrong(error)}.") from error


def _explain(model: type[BaseModel], error: Any, where: str) -> str:
    path = [str(p) for p in error["loc"]]
    at = ".".join([where, *path] if where else path) or where or model.__name__
    if error["type"] == "extra_forbidden":
        owner = _owner(model, path[:-1])
        return f"unknown field {at!r}{suggest(path[-1], owner.model_fields if owner else [])}"
    if error["type"] == "missing":
        return f"{at!r} is required: {model.__name__} cannot do without it."
    given = f" (given: {shown(error['input'])})" if not isinstance(error["input"], dict) else ""
    return f"{at}: {error['msg']}{given}."


def _owner(model: type[BaseModel], path: list[str]) -> type[BaseModel] | None:
    for name in path:
        field = model.model_fields.get(name)
        if field is None:
            return None
        kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
        nested = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
        if not nested:
            return None
        model = nested[0]
    return model
