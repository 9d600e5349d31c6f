"""A plain training loop and losses."""
