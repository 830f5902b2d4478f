"""OpenAI's endpoints around its videos: lists, files, deletion, and the models.

References: https://platform.openai.com/docs/api-reference/videos and .../models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from ..errors import FieldProblem, InvalidRequestError
from ..schema import JobView
from .base import Listing, read_query
from .openai import MODEL, SUBMIT_PATH, job_to_wire
from .openai_models import ContentQuery, ListQuery, Model, ModelList, VideoDeleted, VideoList

LIST_PATH = SUBMIT_PATH
MODELS_PATH = "/v1/models"
MODEL_PATH = "/v1/models/{model_id:path}"  # the ids of some have slashes, also of those that are not here
# HunyuanVideo's publication, 3 December 2024: the field is required, and which checkpoint runs may change.
_CREATED = 1733184000


class UnknownModelError(InvalidRequestError):
    """No model of this server has that id."""


def list_from_wire(query: Mapping[str, str]) -> Listing:
    """The videos that a list asks for, the newest first unless it says otherwise.

    Raises:
        InvalidRequestError: naming each parameter.
    """
    fields = read_query(ListQuery, query)
    return Listing(limit=fields.limit, after=fields.after, oldest_first=fields.order == "asc")


def variant_from_wire(query: Mapping[str, str]) -> Literal["video", "thumbnail"]:
    """The file that is asked for; there are no spritesheets here.

    Raises:
        InvalidRequestError: it is neither the video nor its thumbnail.
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


def models_to_wire() -> ModelList:
    """The one model that there is, under the name that every video has."""
    return ModelList(object="list", data=[model_to_wire(MODEL)])


def model_to_wire(model_id: str) -> Model:
    """A model by its id.

    Raises:
        UnknownModelError: it is not the one that there is.
    """
    if model_id != MODEL:
        raise UnknownModelError([FieldProblem("model", model_id, f"is not a model of this server; there is {MODEL}")])
    return Model(id=MODEL, object="model", created=_CREATED, owned_by="tencent")
