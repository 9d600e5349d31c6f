"""Robustness suites, for dual encoders."""
