"""The stages of the loop as plain rules; a stage never imports another."""
