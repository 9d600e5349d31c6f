"""Utility suites."""
