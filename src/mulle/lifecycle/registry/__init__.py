"""Stage 5: compile the fitted model, prove that it answers alike, write the bundle."""
