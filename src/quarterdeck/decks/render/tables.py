"""Tables: pandas, arrow, and whatever gives itself as one of these. Cells are escaped. Imported with the
package that they are of.
"""

from __future__ import annotations

from typing import Any

from quarterdeck.decks.render.html import card, escaped, first_of, number, table
from quarterdeck.present.tables import Raw

ROWS_WHOLE = 50
"""A table of no more is shown whole, of a longer one the first rows."""
ROWS = 10
COLUMNS = 100


def frame(value: Any) -> str:
    rows, columns = value.shape
    shown = rows if rows <= ROWS_WHOLE else ROWS
    cut = value.iloc[:shown, :COLUMNS]
    html = cut.to_html(escape=True, border=0, notebook=False, max_cols=None, max_rows=None, justify="unset")
    facts = [first_of(shown, rows, "rows"), first_of(min(columns, COLUMNS), columns, "columns")]
    what = [f"{rows:,} rows × {columns:,} columns"] if not any(facts) else facts
    return card(type(value).__name__, what, Raw(f'<div class="qd-scroll qd-frame">{html}</div>'))


def series(value: Any) -> str:
    return frame(value.to_frame(name=value.name if value.name is not None else "value"))


def arrow(value: Any) -> str:
    """Only what is shown becomes Python objects."""
    rows, columns = value.num_rows, value.num_columns
    shown, wide = rows if rows <= ROWS_WHOLE else ROWS, min(columns, COLUMNS)
    cut = [value.column(place).slice(0, shown).to_pylist() for place in range(wide)]
    fields = [value.schema.field(place) for place in range(wide)]
    heads = [Raw(f"{escaped(field.name)}<small>{escaped(str(field.type))}</small>") for field in fields]
    right = [place for place, field in enumerate(fields) if _is_number(str(field.type))]
    body = table(heads, ([_cell(value) for value in row] for row in zip(*cut, strict=True)), right)
    facts = [first_of(shown, rows, "rows"), first_of(wide, columns, "columns")]
    return card("Table", facts if any(facts) else [f"{rows:,} rows × {columns:,} columns"], body)


def interchange(value: Any) -> str:
    """Any data frame that speaks arrow's C stream, or the data frame interchange protocol."""
    import pyarrow  # type: ignore[import-untyped]

    if hasattr(value, "__arrow_c_stream__"):
        return arrow(pyarrow.table(value))
    from pyarrow.interchange import from_dataframe  # type: ignore[import-untyped]

    return arrow(from_dataframe(value))


def _is_number(type_: str) -> bool:
    return type_.startswith(("int", "uint", "float", "double", "half", "decimal"))


def _cell(value: object) -> str:
    if value is None:
        return ""
    return number(value) if isinstance(value, float) and value == value else str(value)
