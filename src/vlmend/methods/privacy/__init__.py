"""Privacy methods."""
