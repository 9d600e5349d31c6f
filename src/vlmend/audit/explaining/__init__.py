"""Why a target gives a picture the score it gives: heat maps, and the checks that make them worth looking at."""
