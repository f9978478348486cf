"""PEFT's adapters as prefixes: folders that `PeftModel.save_pretrained` wrote are read without peft
itself.

`config.py` says what an adapter is and which kinds are prefixes, `tensors.py` reads its numbers,
`kv_layout.py` knows how PEFT lays keys and values out, `embeddings.py` runs the base over virtual
tokens, `fit.py` compares an adapter with a base, and `adapter.py` puts them together. The way back
is `export/formats/peft.py`.
"""

from edgeprefix.export.peft.adapter import AdapterOptions, is_adapter, prefix_of_adapter
from edgeprefix.export.peft.config import CONFIG_FILE, TENSOR_FILE

__all__ = ["CONFIG_FILE", "TENSOR_FILE", "AdapterOptions", "is_adapter", "prefix_of_adapter"]
