"""Stage 6: the runtime that answers rows, its queue, its routes and the prediction log."""
