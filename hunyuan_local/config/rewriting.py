"""How prompts are rewritten: by which language model, within which time, and what happens if it fails.

The wording is in ``configs/rewrite``, one file a mode. Knows nothing about torch or the network.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .strict import StrictConfig

FailurePolicy = Literal["fail", "use-original"]

# Small enough to run beside other work, knows English and Chinese, and is under the Apache licence.
DEFAULT_MODEL = "Qwen/Qwen2.5-1.5B-Instruct"


class RewriteConfig(StrictConfig):
    """Who rewrites prompts.

    Attributes:
        model_id: of the language model, a Hub id or a folder with a chat template, or its name at the endpoint; None
            is ``DEFAULT_MODEL``, or the first that the endpoint lists.
        revision: branch, tag or commit of a Hub repository.
        endpoint: base URL of a server with OpenAI's chat completions, such as ``http://127.0.0.1:8080/v1``; None runs
            the model here.
        timeout_s: a rewriting may take so many seconds; loading the model is not counted.
        on_failure: ``fail`` ends the generation; ``use-original`` goes on with the prompt as it was, and says so.
    """

    model_id: str | None = None
    revision: str | None = None
    endpoint: str | None = None
    timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 60.0
    on_failure: FailurePolicy = "fail"


class RewriteTemplate(StrictConfig):
    """One mode of rewriting, as ``configs/rewrite/MODE.yaml`` has it.

    Attributes:
        system: what the language model is told to do.
        max_new_tokens: the longest answer that it is let write.
        max_characters: the longest rewritten prompt that is taken.
    """

    system: Annotated[str, Field(min_length=1)]
    max_new_tokens: Annotated[int, Field(ge=1)]
    max_characters: Annotated[int, Field(ge=1)]


class AnswerPhrases(StrictConfig):
    """How to tell a prompt from what else language models write, as ``configs/rewrite/answers.yaml`` has it.

    All texts are in small letters. A ``*`` at the end of a phrase stands for any ending of its last word.

    Attributes:
        refusals: beginnings of answers with which a model declines.
        to_user: what a model says to its user, anywhere.
        about_prompts: what a text about a prompt says, anywhere.
        first_person: first words of sentences in which the writer speaks of itself.
        speakers: with one of these or of those, a prompt is itself written in the first person.
        requests: first words of sentences that ask for something.
        speech_verbs: verbs before a colon, after which somebody in the video speaks.
        interjections: what comes before an introduction, such as ``sure``.
        openers: a line that begins with one of these and has one of ``prompt_words`` introduces a prompt.
        prompt_words: see ``openers``.
        label_words: the other words of a line that says nothing of a video, such as ``prompt:``.
        closings: beginnings of what a model says after a prompt.
        function_words: of each language, words that a video cannot show, separated by spaces.
        articles: those of them that are left out where the language is not clear.
        film_words: words of films, which two prompts may share without being about the same.
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
