"""Our own exporter, as `edgeprefix export decoder` calls it but for the comparison with torch: the
race compares tokens itself.

python export_ours.py CHECKPOINT FOLDER PRECISION
"""

from __future__ import annotations

import sys
from pathlib import Path

from edgeprefix.export import export_decoder

if __name__ == "__main__":
    export_decoder(Path(sys.argv[1]), Path(sys.argv[2]), precision=sys.argv[3], verify=False)
