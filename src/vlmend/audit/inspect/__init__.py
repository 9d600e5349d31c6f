"""The only place that imports Inspect AI."""
