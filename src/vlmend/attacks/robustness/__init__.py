"""Attacks on robustness."""
