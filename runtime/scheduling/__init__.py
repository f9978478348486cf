"""Many requests over one graph: the line, the batch, and the thread that owns both."""
