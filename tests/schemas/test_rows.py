"""The classes of rows have the columns of their tables."""

from dataclasses import fields

import pyarrow as pa
import pytest

from schemas.attack import ATTACKS, AttackRow
from schemas.evaluation import IMAGES, ImageRow


@pytest.mark.parametrize(("row", "table"), [(AttackRow, ATTACKS), (ImageRow, IMAGES)])
def test_a_row_has_the_columns_of_its_table(row: type, table: pa.Schema) -> None:
    # Arrow leaves out a column that it does not know, and fills a missing one with nulls.
    assert [field.name for field in fields(row)] == table.names
