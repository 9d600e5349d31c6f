"""From conversations to inputs and states of the bare model."""
