"""The marker `Field(7)`: the number of a field in the messages of gRPC."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.errors import ConfigurationError

LARGEST = 2**29 - 1
RESERVED = range(19000, 20000)
"""Numbers that protobuf keeps for itself."""


@dataclass(frozen=True)
class Field:
    """Marker: the number of a field or of a parameter in the messages of gRPC.

    Without it, the number comes from the committed `.proto` file, or else from the order of the fields.

    Args:
        number: 1 to 536870911, without 19000 to 19999, which protobuf keeps for itself.

    Raises:
        ConfigurationError: The number is none of these.

    Example:
        ```python
        from dataclasses import dataclass
        from typing import Annotated

        from tinysvc import Field

        @dataclass
        class Point:
            x: Annotated[float, Field(1)]
            y: Annotated[float, Field(2)]
        ```
    """

    number: int

    def __post_init__(self) -> None:
        if type(self.number) is not int or not 1 <= self.number <= LARGEST or self.number in RESERVED:
            raise ConfigurationError(
                f"Field({self.number!r}): the number of a field is 1 to {LARGEST}, and none of 19000 to 19999"
            )
