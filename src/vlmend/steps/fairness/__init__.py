"""Steps that make training data fairer: what people look like no longer goes with what they are called."""
