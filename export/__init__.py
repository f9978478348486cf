"""Makes bundles out of base models, prefix files out of training runs, and proves that a bundle
equals torch.
"""

from edgeprefix.export.bundle import export_decoder
from edgeprefix.export.comparison import CaseReport
from edgeprefix.export.parity import Bounds, ParityReport
from edgeprefix.export.prefix import export_prefix
from edgeprefix.export.verify import verify

__all__ = ["Bounds", "CaseReport", "ParityReport", "export_decoder", "export_prefix", "verify"]
