"""Models that judges are made of."""
