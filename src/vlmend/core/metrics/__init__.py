"""Statistics and measures as pure functions."""
