"""Fairness methods."""
