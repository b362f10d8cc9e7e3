"""What the service takes and answers, as its OpenAPI description has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import Query as Parameter
from pydantic import BaseModel, ConfigDict, Field

MAX_K, MAX_CANDIDATES, MAX_TOGETHER = 1000, 100_000, 100
_DIGEST = "of path and code; sent back beside the id, it refuses another photograph that has the id by then"


@dataclass(frozen=True)
class SearchParameters:
    """Parameters of a search."""

    k: Annotated[int, Parameter(ge=1, le=MAX_K, description="answers")] = 20
    candidates: Annotated[
        int | None,
        Parameter(
            ge=1,
            le=MAX_CANDIDATES,
            description="nearest codes that are re-ranked; default: 1,000, and all that tie with the k-th nearest",
        ),
    ] = None
    label: Annotated[
        list[str] | None, Parameter(description="search among this class only; repeatable, for any of several")
    ] = None
    rerank_by: Annotated[
        Literal["auto", "values", "directions", "asymmetric", "cosine", "euclidean", "none"],
        Parameter(description="what the re-rank compares; cosine and euclidean: vectors, where the index is of these"),
    ] = "auto"
    least: Annotated[
        str | None,
        Parameter(
            description="leave out what is less similar: somewhat (25 %), similar (50 %), very (75 %), same (100 %), "
            "or a percentage"
        ),
    ] = None


class Hit(BaseModel):
    """A photograph found."""

    rank: int = Field(description="from 1, in the order of the list that it stands in")
    id: int
    path: str
    label: str = Field(description='class names with spaces between, "" where unknown')
    labels: list[str] = Field(description="the same class names, one by one")
    hamming: int = Field(description="Hamming distance of the codes, in bits")
    similarity: int = Field(description="percent: how many bits agree beyond the half that does so by chance")
    euclidean: float | None = Field(
        description="Euclidean distance of what the re-rank compares; null without re-rank, and beyond float32"
    )
    hamming_rank: int = Field(description="rank by Hamming distance alone")
    reranked_rank: int = Field(description="rank after the re-rank")
    code: str = Field(description="the code, packed, as hexadecimal digits")
    nearest_to: int | None = Field(
        None,
        description="where any of several photographs was searched for, the number from 0 of the one that this is "
        "nearest to, which distances, similarity and the two ranks are of",
    )
    columns: dict[str, Any] = Field({}, description="of the columns that were added to the shards, by name")
    digest: str = Field(description=_DIGEST)


class Maps(BaseModel):
    """Where a code comes from: see-through pictures, as data: URIs, to lay over the photograph."""

    gate: str | None = Field(description="the spatial gate around its mean; null without attention")
    gate_range: list[float] | None = Field(description="least and greatest gate")
    places: str = Field(description="what each cell of the feature map adds to the bits")
    grid: list[int] = Field(description="rows and columns of the feature map, before they were enlarged")
    fit: str = Field(description="how they lie over the photograph, as CSS's object-fit: fill, contain or cover")


class Query(BaseModel):
    """What was searched for."""

    id: int | None = Field(None, description="of an indexed photograph")
    name: str | None = Field(None, description="file name of an upload, or the words or the text that were asked for")
    label: str = Field("", description="class names of an indexed photograph")
    digest: str | None = Field(None, description="of an indexed photograph")
    code: str | None = Field(
        description="the code, packed, as hexadecimal digits; bit 0 is the first digit's highest; null where any of "
        "several photographs was searched for"
    )
    codes: list[str] | None = Field(None, description="the code of each of these")
    values: list[float] | None = Field(None, description="of the hash layer, to search by again without the photograph")
    maps: Maps | None = Field(None, description="where the code comes from, of an upload that asks for it")
    milliseconds: dict[str, float] = Field(description="decode, encode (waiting and batch), hamming, rerank")


class Answer(BaseModel):
    """The nearest photographs, best first, in both orders."""

    query: Query
    hits: list[Hit] = Field(description="after the re-rank")
    hamming_hits: list[Hit] = Field(description="by Hamming distance alone")
    nearest: Hit | None = Field(None, description="the nearest, where no photograph is as similar as `least`")
    count: int = Field(description="photographs that were searched")
    candidates: int = Field(description="nearest of them that were re-ranked")
    ties_cut: bool = Field(description="whether others are as near as the k-th nearest, but were not re-ranked")
    generation: int = Field(description="of the index")


class Values(BaseModel):
    """Hash-layer values to search by, as an answer's query has them, or those of several answers."""

    model_config = ConfigDict(extra="forbid")
    values: list[float] | Annotated[list[list[float]], Field(min_length=1, max_length=MAX_TOGETHER)]


class Vector(BaseModel):
    """A vector to search by, as the indexed ones were before they were encoded."""

    model_config = ConfigDict(extra="forbid")
    vector: list[float]


class Item(BaseModel):
    """An indexed photograph."""

    id: int
    path: str
    label: str
    labels: list[str]
    code: str
    there: bool = Field(description="whether its file can be read")
    digest: str = Field(description=_DIGEST)


class About(BaseModel):
    """The index that is served."""

    count: int
    bits: int
    classes: list[str]
    encoder: dict[str, Any] | None = Field(
        description="method, image_size, attention or not, vector_width where it takes vectors; null without a model"
    )
    words: list[str] = Field(description="names of classes that can be asked for in words; none where none can")
    text: bool = Field(description="whether the encoder takes texts")
    values: bool = Field(description="whether the index can re-rank")
    generation: int
    max_upload_bytes: int
    max_pixels: int
    max_k: int
    max_candidates: int
    version: str


class Health(BaseModel):
    """Whether the service can answer."""

    status: str = Field(
        description='"ok"; "stale" where a newer index could not be taken up, or its engine is away; "damaged" where a '
        "file of the index that is served has changed, so that searches get HTTP's 503"
    )
    problem: str | None = Field(None, description="what is wrong, one line; the service tries again by itself")
    generation: int
    count: int
    checked: str = Field(description="what was compared with the index's own record so far")


class Problem(BaseModel):
    """Why there is no answer."""

    error: str = Field(description="one line: what is wrong")
