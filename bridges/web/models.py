"""What goes in and out over HTTP, as models: they validate, and they are the OpenAPI description."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "Health",
    "PeerModel",
    "Problem",
    "PublishBody",
    "Published",
    "ReplyModel",
    "RequestBody",
    "Traffic",
]

Topic = Annotated[str, Field(min_length=1, max_length=256, examples=["home/kitchen/temperature"])]
Value = Annotated[
    Any,
    Field(description='Anything JSON carries; an object whose only member is "base64" stands for bytes.'),
]
Headers = Annotated[dict[str, str] | None, Field(max_length=64, examples=[{"unit": "°C"}])]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class PublishBody(_Strict):
    """A message to publish."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"topic": "home/kitchen/temperature", "value": 21.5}]}
    )

    topic: Topic
    value: Value = None
    headers: Headers = None


class Published(BaseModel):
    """It was given to the mesh."""

    published: bool = True


class RequestBody(_Strict):
    """A request to whoever serves the topic."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"topic": "home/kitchen/oven", "value": {"set": 180}, "timeout": 5}]}
    )

    topic: Topic
    value: Value = None
    headers: Headers = None
    timeout: Annotated[
        float | None,
        Field(gt=0, le=60, strict=False, description="Seconds to wait; the node's own patience if absent."),
    ] = None


class ReplyModel(BaseModel):
    """One responder's reply."""

    value: Value
    sender: Annotated[str, Field(examples=["cellar"])]


class PeerModel(BaseModel):
    """A member's node, as it is now."""

    id: Annotated[str, Field(examples=["6f1d0c5ae27b4f0d9a52c0ffee123456"])]
    name: Annotated[str, Field(examples=["cellar"])]
    member: str
    endpoints: Annotated[list[str], Field(examples=[["tcp://192.168.1.7:7400"]])]
    state: Annotated[str, Field(examples=["alive", "suspect"])]
    rtt: Annotated[float | None, Field(description="Smoothed round trip in seconds.")]


class NodeName(BaseModel):
    """A node of the mesh."""

    id: Annotated[str, Field(examples=["6f1d0c5ae27b4f0d9a52c0ffee123456"])]
    name: Annotated[str, Field(examples=["cellar"])]


class Pair(BaseModel):
    """A round trip, as the first of the two nodes measures it."""

    model_config = ConfigDict(populate_by_name=True)

    source: Annotated[str, Field(alias="from", description="The node that says so.")]
    target: Annotated[str, Field(alias="to")]
    seconds: Annotated[float, Field(description="Smoothed, in seconds.")]


class Pairs(BaseModel):
    """Round trips between nodes, as far as they are known."""

    nodes: list[NodeName]
    pairs: list[Pair]
    others: Annotated[int, Field(description="Pairs that found no room.")]


class Health(BaseModel):
    """The gateway answers."""

    status: Annotated[str, Field(examples=["ok"])]
    node: Annotated[str, Field(examples=["kitchen"])]
    peers: int


class Problem(BaseModel):
    """Problem details (RFC 9457)."""

    type: Annotated[str, Field(examples=["urn:zeromesh:error:NoResponders"])]
    title: str
    status: int
    detail: str
    error: Annotated[str, Field(examples=["NoResponders"])]


class TrafficRow(BaseModel):
    """What was seen of one topic since somebody began to look."""

    topic: str
    messages: int
    bytes: int
    rate: Annotated[float, Field(description="Messages a second, of late.")]
    senders: list[str]


class Traffic(BaseModel):
    """Traffic by topic, the busiest first."""

    topics: list[TrafficRow]
    others: Annotated[int, Field(description="Messages on topics that found no room in the table.")]
    lost: int
    dropped: int
