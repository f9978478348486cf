"""What `edgeprefix bench` measures and how it is shown; imported only when it is called.

The parent process plans, watches and reports; every number comes from processes of their own, which
hold nothing but the runtime (`worker.py`, `cold_start.py`, `memory_bandwidth.py`).
"""
