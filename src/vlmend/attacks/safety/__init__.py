"""Attacks on safety."""
