"""Suites that measure privacy."""
