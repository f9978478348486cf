"""Many requests over one graph: the line, the batch, and what a caller holds while it waits."""
