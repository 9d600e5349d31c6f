"""Tools of the house, outside the wheel."""
