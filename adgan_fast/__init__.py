"""adgan_fast: fast, exact ADGAN anomaly scores (Deecke et al., ECML PKDD 2018)."""

from .api import score, search
from .config import SearchConfig
from .engine import EngineInfo, engines
from .outcome import Status
from .result import SearchResult
from .scorer import Scorer

__version__ = "0.1.0"

__all__ = ["EngineInfo", "Scorer", "SearchConfig", "SearchResult", "Status", "engines", "score", "search"]
