"""The command line: one `edgeprefix`, whose root stands here and finds every room's commands
through entry points.
"""
