"""Steps that make training data broader, so that what is learnt holds where the world differs."""
