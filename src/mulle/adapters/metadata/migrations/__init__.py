"""How an older database becomes the present one, a step per release."""
