"""Rounding that knows the data: a base's matrices become few bits by what they do to text.

From the bottom up: grid.py chooses scales and zero points of blocks, gptq.py steps of a matrix,
pack.py stores them. walk.py takes texts through a model layer by layer, siblings.py finds the
matrices on the way, layerwise.py rounds one layer after the other. damage.py measures what a format
would cost where, budget.py chooses by it. texts.py finds the text; plan.py and calibrated.py put
all together, and table.py shows it.
"""
