"""The primitives, one file per family: each op is a forward and its derivative, side by side."""
