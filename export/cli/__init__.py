"""The commands `export decoder`, `export prefix` and `verify`, a file each; `app.py` joins them."""
