"""Doctor's checks and facts."""
