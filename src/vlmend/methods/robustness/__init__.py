"""Robustness methods."""
