"""Settings for prompt rewriting: language model, time limit, and what happens on failure.

The instructions are in ``configs/rewrite``, one file per mode. This module uses neither torch nor the network.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .strict import StrictConfig

FailurePolicy = Literal["fail", "use-original"]

# Small enough to run alongside the video model, handles English and Chinese, and has the Apache licence.
DEFAULT_MODEL = "Qwen/Qwen2.5-1.5B-Instruct"


class RewriteConfig(StrictConfig):
    """Settings for prompt rewriting.

    Attributes:
        model_id: language model: a Hub id, a folder with a chat template, or a model name at the endpoint; None is
            ``DEFAULT_MODEL``, or the first model that the endpoint lists.
        revision: branch, tag or commit of a Hub repository.
        endpoint: base URL of an OpenAI-compatible server, such as ``http://127.0.0.1:8080/v1``; None runs the model
            on this machine.
        timeout_s: time limit in seconds, without loading the model.
        on_failure: ``fail`` stops the generation; ``use-original`` continues with the original prompt and adds a note.
    """

    model_id: str | None = None
    revision: str | None = None
    endpoint: str | None = None
    timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 60.0
    on_failure: FailurePolicy = "fail"


class RewriteTemplate(StrictConfig):
    """One rewriting mode, read from ``configs/rewrite/MODE.yaml``.

    Attributes:
        system: system prompt for the language model.
        max_new_tokens: maximum length of its answer.
        max_characters: maximum length of the rewritten prompt.
    """

    system: Annotated[str, Field(min_length=1)]
    max_new_tokens: Annotated[int, Field(ge=1)]
    max_characters: Annotated[int, Field(ge=1)]


class AnswerPhrases(StrictConfig):
    """Phrases that distinguish a prompt from other model output, read from ``configs/rewrite/answers.yaml``.

    All phrases are lower case. A ``*`` at the end of a phrase matches any ending of its last word.

    Attributes:
        refusals: beginnings of refusals.
        to_user: phrases that address the user, anywhere in the text.
        about_prompts: phrases of a text about a prompt, anywhere in the text.
        first_person: first words of sentences in which the writer refers to itself.
        speakers: with one of these or of ``first_person``, the original prompt is itself in the first person.
        requests: first words of sentences that ask for something.
        speech_verbs: verbs before a colon that introduce speech in the video.
        interjections: words before an introduction, such as ``sure``.
        openers: a line that starts with one of these and contains one of ``prompt_words`` introduces a prompt.
        prompt_words: words for a prompt, for ``openers``.
        label_words: other words of a label line such as ``prompt:``, which does not describe a video.
        closings: beginnings of remarks after a prompt.
        function_words: for each language, words without visible meaning, separated by spaces.
        articles: function words that are ignored if the language is ambiguous.
        film_words: film terms, which two prompts may share without having the same subject.
    """

    refusals: tuple[str, ...]
    to_user: tuple[str, ...]
    about_prompts: tuple[str, ...]
    first_person: tuple[str, ...]
    speakers: tuple[str, ...]
    requests: tuple[str, ...]
    speech_verbs: tuple[str, ...]
    interjections: tuple[str, ...]
    openers: tuple[str, ...]
    prompt_words: tuple[str, ...]
    label_words: tuple[str, ...]
    closings: tuple[str, ...]
    function_words: dict[str, str]
    articles: tuple[str, ...]
    film_words: tuple[str, ...]
