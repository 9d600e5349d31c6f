"""Fairness suites, for dual encoders."""
