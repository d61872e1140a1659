"""The loops that NumPy cannot say well: plain functions on plain arrays."""
