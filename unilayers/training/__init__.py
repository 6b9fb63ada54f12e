"""Training: one graph for the whole step, the loop around it, and what may look on (callbacks)."""
