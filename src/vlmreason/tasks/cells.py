"""Cells of tables and grids: (row, column), counted from 1, in all that tasks write."""

Cell = tuple[int, int]


def cell_name(cell: Cell) -> str:
    """Write a cell as every prompt and reply does: (row,column)."""
    return f"({cell[0]},{cell[1]})"
