"""The public names of hashret: editors and type checkers read this file, and lazy_loader loads from it."""

from .adding import add as add
from .comparison import Comparison as Comparison, compare as compare
from .data import Source as Source, open_data as open_data
from .description import Description as Description, info as info
from .encoding import EncodeReport as EncodeReport, encode as encode
from .engines import Export as Export, export as export
from .errors import HashretError as HashretError
from .evaluation import (
    Evaluation as Evaluation,
    HammingFigures as HammingFigures,
    RerankedFigures as RerankedFigures,
    evaluate as evaluate,
)
from .explanation import Explanation as Explanation, explain as explain
from .hits import Hit as Hit, HitList as HitList, QueryAnswer as QueryAnswer
from .index import (
    Database as Database,
    Hits as Hits,
    Index as Index,
    Item as Item,
    build_index as build_index,
    compact as compact,
    open_index as open_index,
    relocate as relocate,
    remove as remove,
)
from .index.calibration import Calibration as Calibration
from .index.changes import (
    BuiltIndex as BuiltIndex,
    Compacted as Compacted,
    Relocated as Relocated,
    Removed as Removed,
)
from .mirror.syncing import SyncReport as SyncReport, sync as sync
from .mirror.watching import watch as watch
from .models.attribution import Attribution as Attribution
from .models.checkpoint import load_encoder as load_encoder
from .models.encoder import Encoder as Encoder
from .near_duplicates.groups import Duplicates as Duplicates, Photograph as Photograph, duplicates as duplicates
from .near_duplicates.moving import Move as Move, Moves as Moves, restore as restore, set_aside as set_aside
from .opening import open_database as open_database
from .progress import quieted as quieted
from .reporting.figures import Figures as Figures
from .reporting.page import report as report
from .search import Searcher as Searcher, query as query
from .service import serve as serve
from .training.settings import TrainReport as TrainReport
from .training.start import train as train

__version__: str
__all__: list[str]
