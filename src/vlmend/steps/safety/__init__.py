"""Steps of the axis safety."""
