"""Attacks: a data set and a target in, a data set that the target fails on out. One file an attack."""
