"""Methods that restore refusal."""
