"""Audits on Inspect AI: the only package that imports it."""
