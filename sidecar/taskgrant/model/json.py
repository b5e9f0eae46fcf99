"""The JSON values that cross taskgrant, as types: strings, finite numbers, booleans, null, arrays, objects with unique keys."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

Json: TypeAlias = "str | int | float | bool | None | Sequence[Json] | Mapping[str, Json]"
JsonObject: TypeAlias = Mapping[str, Json]
