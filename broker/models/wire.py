"""How a JSON object of the wire contract is read and written."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Wire(BaseModel):
    """A JSON object of the wire contract: camelCase in JSON, our own names in Python.

    JSON is read by the names of the contract alone. Were our own names taken too, a field that the contract
    does not know (`first_name`) could stand in for one that it does (`firstName`).
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        frozen=True,
    )

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray, **options: Any) -> Self:
        """Read JSON; raises ValidationError."""
        if options:
            return super().model_validate_json(json_data, **{"by_alias": True, "by_name": False, **options})
        made: Self = cls.__pydantic_validator__.validate_json(json_data, by_alias=True, by_name=False)
        return made

    @classmethod
    def read(cls, value: Mapping[str, Any]) -> Self:
        """Read parsed JSON in the same way; raises ValidationError."""
        return cls.model_validate(value, by_alias=True, by_name=False)
