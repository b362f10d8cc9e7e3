"""The public names of hashret: editors and type checkers read this file, and lazy_loader loads from it."""

from .data import open_data as open_data
from .description import info as info
from .encoding import EncodeReport as EncodeReport, encode as encode
from .engines import export as export
from .errors import HashretError as HashretError
from .evaluation import evaluate as evaluate
from .explanation import explain as explain
from .index import (
    Index as Index,
    build_index as build_index,
    compact as compact,
    open_index as open_index,
    remove as remove,
)
from .models.checkpoint import load_encoder as load_encoder
from .models.encoder import Encoder as Encoder
from .near_duplicates.groups import duplicates as duplicates
from .near_duplicates.moving import restore as restore, set_aside as set_aside
from .opening import open_database as open_database
from .progress import quieted as quieted
from .reporting.page import report as report
from .search import (
    Hit as Hit,
    HitList as HitList,
    QueryAnswer as QueryAnswer,
    Searcher as Searcher,
    add as add,
    query as query,
)
from .service import serve as serve
from .training.start import train as train

__version__: str
__all__: list[str]
