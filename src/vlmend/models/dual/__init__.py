"""Dual encoders (CLIP kind)."""
