"""Figures and pages from run files."""
