"""From requests to replies, batch by batch."""
