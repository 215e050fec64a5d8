"""adgan_fast: fast, exact ADGAN anomaly scores (Deecke et al., ECML PKDD 2018)."""

from .adaptive import Adaptive
from .api import score, search
from .calibration import Calibration
from .config import SearchConfig
from .detector import Detector
from .engine import EngineInfo, engines
from .outcome import Status
from .result import SearchResult
from .scorer import Scorer

__version__ = "0.1.0"

__all__ = [
    "Adaptive",
    "Calibration",
    "Detector",
    "EngineInfo",
    "Scorer",
    "SearchConfig",
    "SearchResult",
    "Status",
    "engines",
    "score",
    "search",
]
