"""Texts of an evaluation or attack that a tokenizer or the scorer reads the beginning of alone."""

from collections.abc import Sequence

from engine.evaluation.recognition import choice_texts
from engine.evaluation.wordings import fill
from engine.model.hub import source_folder
from engine.model.opening import open_tokenizers
from engine.model.scorer import count_scorer_tokens
from engine.model.tokens import count_tokens
from engine.model.vocabulary import read_phrasebook
from jobs.runs.progress import Note
from schemas.attack import AttackPlan
from schemas.evaluation import EvaluationPlan, EvaluationPrompt


def warn_of_cuts(plan: EvaluationPlan, note: Note) -> None:
    """Note each tokenizer of the model, and the scorer, that cuts texts of an evaluation."""
    prompts = [prompt for subject in plan.subjects for prompt in subject.prompts]
    texts = list(dict.fromkeys(prompt.text for prompt in prompts))
    for part, tokenizer in open_tokenizers(plan.model).items():
        counts = count_tokens(tokenizer, texts)
        _warn(f"the {part}'s tokenizer", texts, counts, tokenizer.model_max_length, note)
    judged = _judged(prompts, plan)
    _warn("the scorer", judged, *count_scorer_tokens(plan.scorer, judged), note)


def warn_of_cut_choices(plan: AttackPlan, note: Note) -> None:
    """Note whether the scorer cuts texts that the images of an attack are compared with."""
    book = read_phrasebook(source_folder(plan.model))
    choices = (choice_texts(c, plan.names[c.kind], book=book) for c in plan.attacked)
    texts = list(dict.fromkeys(text for of_one in choices for text in of_one))
    _warn("the scorer", texts, *count_scorer_tokens(plan.scorer, texts), note)


def _judged(prompts: Sequence[EvaluationPrompt], plan: EvaluationPlan) -> list[str]:
    """Return the texts that images are compared with."""
    templates = dict.fromkeys(
        (template, prompt.kind)
        for prompt in prompts
        for template in (prompt.template, prompt.edited_template)
        if template and prompt.kind
    )
    filled = (fill(t, name) for t, kind in templates if kind for name in plan.names[kind])
    return list(dict.fromkeys(filled))


def _warn(reader: str, texts: Sequence[str], counts: Sequence[int], limit: int, note: Note) -> None:
    long = [text for text, count in zip(texts, counts, strict=True) if count > limit]
    if long:
        note(
            f"warning: {reader} reads {limit} tokens: of {len(long)} of {len(texts)} texts it "
            f"reads the beginning alone, such as {max(long, key=len)!r}"
        )
