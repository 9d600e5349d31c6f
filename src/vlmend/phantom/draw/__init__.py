"""phantom-draw: a small text-to-image pipeline trained from scratch, with pictures planted to be learnt by heart."""
