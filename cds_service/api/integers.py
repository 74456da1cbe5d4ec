"""Integers as JSON Schema means them."""

from typing import Annotated

from pydantic import BeforeValidator, Strict


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole), Strict()]
"""97.0 is an integer to JSON Schema (2020-12, 6.1.1) and to languages with one kind of number; a text is not."""
