"""The base of models that users make themselves, whose wrong values are one sentence."""

from typing import Any, ClassVar, Self

from pydantic import BaseModel, ModelWrapValidatorHandler, ValidationError, model_validator

from schemas.documents import first_message, is_mapping
from schemas.errors import DqfError, PlanError
from schemas.numbers import check_decimal


class DecimalModel(BaseModel):
    """A model of a user's file, in which a number may be a text of decimal digits."""

    @model_validator(mode="wrap")
    @classmethod
    def _of_decimals(cls, fields: object, check: ModelWrapValidatorHandler[Self]) -> Self:
        """Refuse a text that was read as a number and is not written in decimal digits."""
        made = check(fields)
        for name, value in fields.items() if is_mapping(fields) else ():
            check_decimal(value, getattr(made, name, None), name=f"{name}: ")
        return made


class CheckedModel(DecimalModel):
    """A model whose constructor raises `refused_as` where a value is wrong.

    `model_validate` raises pydantic's ValidationError, to which a file's reader adds the line.
    """

    refused_as: ClassVar[type[DqfError]] = PlanError

    def __init__(self, /, **fields: Any) -> None:
        """Check the fields; `refused_as` names the first that is wrong, and its value."""
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise self.refused_as(f"{type(self).__name__}: {first_message(error)}") from error

    # Else pydantic would validate through this constructor, and no reader could add its line.
    __init__.__pydantic_base_init__ = True  # pyright: ignore[reportFunctionMemberAccess]

    @model_validator(mode="before")
    @classmethod
    def _without_truth_values(cls, fields: object) -> object:
        """Refuse True and False, which would be read as 1 and 0: no field is one."""
        for name, value in fields.items() if is_mapping(fields) else ():
            if isinstance(value, bool):
                raise ValueError(f"{name} is {str(value).lower()}: give a number or text")
        return fields
