"""OpenAI's other video endpoints: lists, files, deletion and models.

References: https://platform.openai.com/docs/api-reference/videos and .../models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from ..errors import FieldProblem, InvalidRequestError
from ..schema import JobView
from .base import Listing, read_query
from .openai import SUBMIT_PATH, job_to_wire
from .openai_models import ContentQuery, ListQuery, Model, ModelList, VideoDeleted, VideoList

LIST_PATH = SUBMIT_PATH
MODELS_PATH = "/v1/models"
MODEL_PATH = "/v1/models/{model_id:path}"  # model ids may contain slashes
# Release of HunyuanVideo, 3 December 2024. The API requires a value, and the checkpoint in use may change.
_CREATED = 1733184000


class UnknownModelError(InvalidRequestError):
    """This server has no model with this id."""


def list_from_wire(query: Mapping[str, str]) -> Listing:
    """Parse the query of a list, newest first by default.

    Raises:
        InvalidRequestError: names each invalid parameter.
    """
    fields = read_query(ListQuery, query)
    return Listing(limit=fields.limit, after=fields.after, oldest_first=fields.order == "asc")


def variant_from_wire(query: Mapping[str, str]) -> Literal["video", "thumbnail"]:
    """The requested file: the video or its thumbnail. Spritesheets are not supported.

    Raises:
        InvalidRequestError: any other variant.
    """
    return read_query(ContentQuery, query).variant


def list_to_wire(jobs: list[JobView], base_url: str, has_more: bool) -> VideoList:
    """One page of jobs."""
    first, last = (jobs[0].job_id, jobs[-1].job_id) if jobs else (None, None)
    data = [job_to_wire(job, base_url) for job in jobs]
    return VideoList(object="list", data=data, has_more=has_more, first_id=first, last_id=last)


def deleted_to_wire(job_id: str) -> VideoDeleted:
    """The answer to a deletion."""
    return VideoDeleted(id=job_id, object="video.deleted", deleted=True)


def models_to_wire(name: str) -> ModelList:
    """The list of models; a server has one, with this name."""
    return ModelList(object="list", data=[model_to_wire(name, name)])


def model_to_wire(model_id: str, name: str) -> Model:
    """A model by its id.

    Args:
        name: the server's model.

    Raises:
        UnknownModelError: this server has no such model.
    """
    if model_id != name:
        raise UnknownModelError([FieldProblem("model", model_id, f"not a model of this server; use {name}")])
    return Model(id=name, object="model", created=_CREATED, owned_by="hunyuan-local")
