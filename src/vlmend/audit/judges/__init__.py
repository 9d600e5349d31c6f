"""Judges: one file each, named as the file."""
