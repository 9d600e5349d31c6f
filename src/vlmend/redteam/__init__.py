"""Search for requests that a model fails on: what may be tried, where to look next, and the finds as data."""
