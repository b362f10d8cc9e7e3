"""Names of the package take the field's standard terms: a word that meant several things is in no new public name."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import hashret

PACKAGE = Path(hashret.__file__).parent
# Retired words, and what to call the thing instead.
RETIRED = {
    "alike": "relevant, similar or duplicate",
    "engine": "backend, where it is no database",
    "features": "backbone, feature_map, fc_features or query_features",
    "found": "hits, or what it is",
    "Flat": "DeviceCodes",
    "Joined": "ConcatRows",
    "left": "remaining, unresolved, or what it is",
    "like": "similar",
    "likeness": "duplicate_distance",
    "part": "segment, block, or what it is",
    "Part": "SegmentOnDevice",
    "parts": "segments, blocks, or what they are",
    "place": "position, cell or address",
    "places": "positions or cells",
    "Places": "SortedPhotos",
    "precision": "compute_dtype, where it is a number format",
    "row": "position, source_row or id",
    "rows": "positions, source_rows or ids",
    "Run": "TrainingRun or RunFiles",
    "share": "fraction",
    "some": "block, batch, or what it is",
    "split": "subset",
    "there": "exists, or what it is",
    "Trial": "EvaluationSet",
    "values": "hash_outputs",
    "wanted": "what is wanted",
}
# Keywords of the public verbs are the options of the command line, which users have in their scripts, and names in JSON
# are in their programs.
FOR_USERS = {
    "adding.add(split)",
    "cli.reports.info(split)",
    "cli.searching.query(values)",
    "data.__init__.open_data(split)",
    "data.feature_cache.CacheInfo.precision",
    "description.info(split)",
    "encoding.encode(features)",
    "encoding.encode(precision)",
    "encoding.encode(split)",
    "engines.collection.open_collection(values)",
    "evaluation.evaluate(split)",
    "evaluation.evaluate(values)",
    "evaluation.open_evaluation_set(values)",
    "index.changes.build_index(values)",
    "models.checkpoint.load_encoder(precision)",
    "near_duplicates.groups.duplicates(split)",
    "opening.open_database(values)",
    "search.Searcher.__init__(values)",
    "search.query(values)",
    "service.app.create_app(values)",
    "service.live.LiveIndex.__init__(values)",
    "service.schema.About.values",
    "service.schema.Item.there",
    "service.schema.Maps.places",
    "service.schema.Query.values",
    "service.schema.Values.values",
    "service.server.serve(values)",
    "training.settings.Chosen.precision",
    "training.settings.Chosen.split",
    "training.start.train(precision)",
    "training.start.train(split)",
}
# Words in their one plain meaning: a picture's values, the rows of a database's table, the database itself.
PLAIN = {
    "data.levels.Levels.see(values)",
    "data.levels.Levels.to_bytes(values)",
    "engines.codes.CodeSearch.__init__(engine)",
    "engines.collection.Collection.__init__(engine)",
    "engines.engine.Engine.write(rows)",
    "engines.milvus.Milvus.write(rows)",
    "engines.postgres.Postgres.write(rows)",
}


def public_names(path: Path) -> Iterator[tuple[str, str]]:
    """Every public function, class, parameter and field of a module, as (where it stands, its name)."""
    module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)

    def of(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, str]]:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                if node.name.startswith("_") and node.name not in ("__init__", "__call__"):
                    continue
                yield f"{prefix}.{node.name}", node.name
                for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
                    yield f"{prefix}.{node.name}({one.arg})", one.arg
            elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield f"{prefix}.{node.name}", node.name
                yield from of(node.body, f"{prefix}.{node.name}")
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                yield f"{prefix}.{node.target.id}", node.target.id

    return of(ast.parse(path.read_text(encoding="utf-8")).body, module)


def test_no_public_name_is_a_retired_word():
    named = [pair for path in sorted(PACKAGE.rglob("*.py")) for pair in public_names(path)]
    retired = {where: f"take {RETIRED[name]}" for where, name in named if name in RETIRED}
    for where in [where for where in retired if where.startswith("data.") and re.search(r"\brows?\b", where)]:
        del retired[where]  # a source has rows, and nothing else of that name
    assert {where: advice for where, advice in retired.items() if where not in FOR_USERS | PLAIN} == {}
    assert set(retired) >= FOR_USERS, "no longer there; take it out of the list"
