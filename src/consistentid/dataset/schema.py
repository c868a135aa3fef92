"""The columns of a dataset, which follow from `FGIDRecord`."""

from collections.abc import Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import pyarrow as pa
from pydantic import BaseModel

from consistentid.dataset.record import FGIDRecord, Float32

_PLAIN = {str: pa.string(), bytes: pa.binary(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


def _arrow_type(annotation: Any) -> pa.DataType:
    """The column type of one of the record's annotations."""
    if annotation == Float32:
        return pa.float32()
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _arrow_type(arguments[0])
    if origin in (Union, UnionType):
        return _arrow_type(next(each for each in arguments if each is not NoneType))
    if origin is Literal:
        return pa.string()
    if origin is tuple:
        element = _arrow_type(arguments[0])
        return pa.list_(element) if arguments[-1] is Ellipsis else pa.list_(element, len(arguments))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return pa.struct(list(_arrow_schema(annotation)))
    return _PLAIN[annotation]


def _arrow_schema(model: type[BaseModel]) -> pa.Schema:
    hints = get_type_hints(model, include_extras=True)
    return pa.schema(
        pa.field(name, _arrow_type(hints[name]), nullable=field.default is None)
        for name, field in model.model_fields.items()
    )


SCHEMA: pa.Schema = _arrow_schema(FGIDRecord)


def to_table(records: Sequence[FGIDRecord]) -> pa.Table:
    """The records as a table of `SCHEMA`."""
    return pa.Table.from_pylist([record.model_dump() for record in records], schema=SCHEMA)


def to_records(table: pa.Table) -> list[FGIDRecord]:
    """The records of a table of `SCHEMA`."""
    return [FGIDRecord.model_validate(row) for row in table.to_pylist()]
