"""The frozen model as a checkpoint gives it: where it is, who it is, how it is loaded and rounded.

`train` and `export` stand on this package, so that both mean the same base by the same name.
"""
