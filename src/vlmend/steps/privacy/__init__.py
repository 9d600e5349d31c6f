"""Steps that take what is private out of data."""
