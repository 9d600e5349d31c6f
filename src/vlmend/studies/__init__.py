"""Experiments that ask many views of one model the same questions."""
