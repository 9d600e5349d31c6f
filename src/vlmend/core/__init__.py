"""Plain data and pure functions."""
