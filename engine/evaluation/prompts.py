"""The prompts that an edit is evaluated on, none of which it was fitted on.

An edit is fitted on the openings of `engine.editing.prompts`; here others open. A concept is asked
for plainly, in other wordings and in other places of the prompt; every other name of its kind in
the same ways, so that what is erased and what is kept differ in the name alone.
"""

from collections.abc import Iterator, Sequence

from engine.editing.forms import concept_forms
from engine.evaluation.wordings import Words, escaped, fill, spread, turned
from engine.model.vocabulary import with_article
from schemas.concept import Concept, ConceptKind, ConceptMode
from schemas.evaluation import EvaluationPrompt, Group, Subject
from schemas.prompt_set import PromptSet

GENERAL_GROUP = 8
"""General prompts of one unit."""
SHOWN = 4
"""Number of subjects of a group that are shown, evenly spread, each by its first prompt of the
group."""


def subjects(
    concepts: Sequence[Concept],
    words: Words,
    *,
    prompt_set: PromptSet = PromptSet.FULL,
    forms: bool = True,
    given: Sequence[EvaluationPrompt] = (),
) -> tuple[Subject, ...]:
    """Return all subjects to draw: concepts, kept names, names of other kinds, general prompts.

    `forms`: the full set has a prompt for each form of a concept. `given` are prompts of the
    concepts that are drawn besides.
    """
    per_group = 2 if prompt_set is PromptSet.FULL else 1
    listed = [
        _with_given(_concept(c, number, words, per_group, forms), given)
        for number, c in enumerate(concepts)
    ]
    edited = list(dict.fromkeys(concept.kind for concept in concepts))
    for kind, names in words.names.items():
        if kind in edited:
            listed += [_kept(n, i, kind, words, prompt_set) for i, n in enumerate(names)]
        elif prompt_set is PromptSet.FULL and words.carriers:
            listed += [_unrelated(name, kind, words) for name in spread(names, 12)]
    listed += _general(words)
    return _with_shown(listed)


def _concept(concept: Concept, number: int, words: Words, per_group: int, forms: bool) -> Subject:
    text, kind = concept.concept, concept.kind
    prompts = [
        _prompt(group, template, kind, text)
        for group, templates in templates_of(kind, words, number).items()
        for template in templates[:per_group]
    ]
    if per_group > 1:
        prompts += [*(_forms(concept, number, words) if forms else ()),
                    *_beside(concept, number, words)]  # fmt: skip
    replacement = concept.replacement if concept.mode is ConceptMode.UPDATE else None
    return Subject(name=text, kind=kind, replacement=replacement, prompts=tuple(prompts))


def _with_given(subject: Subject, given: Sequence[EvaluationPrompt]) -> Subject:
    own = [p for p in given if (p.kind, p.name) == (subject.kind, subject.name)]
    return subject.model_copy(update={"prompts": (*subject.prompts, *own)})


def _kept(
    name: str, number: int, kind: ConceptKind, words: Words, prompt_set: PromptSet
) -> Subject:
    """Return a name to keep, with one prompt per efficacy group, as for a concept."""
    by_group = list(templates_of(kind, words, number).values())
    templates = [group[number % len(group)] for group in by_group if group]
    if prompt_set is PromptSet.SMALL:
        templates = [templates[number % len(templates)]]
    prompts = tuple(_prompt(Group.KEPT, template, kind, name) for template in templates)
    return Subject(name=name, kind=kind, prompts=prompts)


def _unrelated(name: str, kind: ConceptKind, words: Words) -> Subject:
    templates = templates_of(kind, words, 0)[Group.CONCEPT]
    prompts = tuple(_prompt(Group.UNRELATED, template, kind, name) for template in templates)
    return Subject(name=name, kind=kind, prompts=prompts)


def _general(words: Words) -> list[Subject]:
    texts = words.general
    return [
        Subject(
            name=f"general prompts {start + 1} to {min(start + GENERAL_GROUP, len(texts))}",
            prompts=tuple(
                EvaluationPrompt(group=Group.GENERAL, text=text)
                for text in texts[start : start + GENERAL_GROUP]
            ),
        )
        for start in range(0, len(texts), GENERAL_GROUP)
    ]


def templates_of(kind: ConceptKind, words: Words, number: int) -> dict[Group, tuple[str, ...]]:
    """Return the wordings of a kind by efficacy group; `number` varies the other words."""
    if kind is ConceptKind.OBJECT:
        return {g: turned(templates, number) for g, templates in words.templates.items()}
    carriers = [escaped(carrier) for carrier in turned(words.carriers, number)[:3]]
    opening = words.opening
    if kind is ConceptKind.STYLE:
        return {
            Group.CONCEPT: tuple(f"{opening} {c} in the style of {{name}}" for c in carriers),
            Group.PARAPHRASE: tuple(f"{c} in the style of {{name}}" for c in carriers),
            Group.POSITION: tuple(f"in the style of {{name}}, {opening} {c}" for c in carriers),
        }
    if kind is ConceptKind.COLOR:
        bare = [carrier.partition(" ")[2] for carrier in carriers]
        return {
            Group.CONCEPT: tuple(f"{opening} {{article}} {c}" for c in bare),
            Group.POSITION: tuple(f"{opening} an upside down {{name}} {c}" for c in bare),
        }
    if kind is ConceptKind.ACTION:
        return {
            Group.CONCEPT: tuple(f"{opening} {c} {{name}}" for c in carriers),
            Group.POSITION: tuple(f"{{name}}, {opening} {c}" for c in carriers),
        }
    return {
        Group.CONCEPT: (f"{opening} {{name}}",),
        Group.PARAPHRASE: ("a black and white sketch of {name}", "{name} in the evening light"),
        Group.POSITION: ("at the end of a long corridor, {name}", "a poster of {name} on a wall"),
    }


def _forms(concept: Concept, number: int, words: Words) -> Iterator[EvaluationPrompt]:
    """Yield a prompt for each form; its images are judged among all names in that form."""
    carrier = next(iter(turned(words.carriers, number)), "a picture")
    fixed = {"opening": words.opening, "carrier": escaped(carrier)}
    # The places that `fill` knows stay.
    places = ("name", "article", "plural", "capital", "capital_article")
    for form in concept_forms(concept):
        template = form.evaluated.format(**fixed, **{place: f"{{{place}}}" for place in places})
        prompt = _prompt(Group.FORM, template, concept.kind, concept.concept)
        if concept.forms is not None:
            text = template.replace("{article}", "{name}").format(name=form.text)
            prompt = prompt.model_copy(update={"text": text})
        yield prompt


def _beside(concept: Concept, number: int, words: Words) -> Iterator[EvaluationPrompt]:
    """Yield prompts of the concept that test their other words: object, style and color."""
    others = {kind: turned(names, number) for kind, names in words.names.items()}
    styles, colors = others[ConceptKind.STYLE][:2], others[ConceptKind.COLOR][:2]
    carriers = [c.partition(" ")[2] for c in turned(words.carriers, number)[:2]]
    known = [c for c in carriers if c in words.names[ConceptKind.OBJECT]]
    asked = {
        ConceptKind.OBJECT: (
            (Group.STYLE, ConceptKind.STYLE, "{opening} {said} in the style of {{name}}", styles),
            (Group.COLOR, ConceptKind.COLOR, "{opening} {{article}} {text}", colors),
        ),
        ConceptKind.STYLE: (
            (
                Group.OBJECT,
                ConceptKind.OBJECT,
                "{opening} {{article}} in the style of {text}",
                known,
            ),
        ),
        ConceptKind.COLOR: (
            (Group.OBJECT, ConceptKind.OBJECT, "{opening} {said} {{name}}", known),
        ),
    }
    for group, kind, pattern, names in asked.get(concept.kind, ()):
        template, edited = (
            pattern.format(opening=words.opening, text=escaped(t), said=escaped(with_article(t)))
            for t in (concept.concept, concept.replacement or concept.concept)
        )
        for name in names:
            prompt = _prompt(group, template, kind, name)
            yield prompt.model_copy(
                update={"edited_template": edited} if concept.replacement else {}
            )


def _prompt(group: Group, template: str, kind: ConceptKind, name: str) -> EvaluationPrompt:
    text = fill(template, name)
    return EvaluationPrompt(group=group, text=text, template=template, kind=kind, name=name)


def _with_shown(listed: Sequence[Subject]) -> tuple[Subject, ...]:
    """Return the subjects with SHOWN of each group marked: evenly spread, by their first prompt."""
    shown: set[tuple[int, int]] = set()
    for group in Group:
        first = {
            number: next(i for i, p in enumerate(s.prompts) if p.group is group)
            for number, s in enumerate(listed)
            if any(p.group is group for p in s.prompts)
        }
        shown |= {(number, first[number]) for number in spread(list(first), SHOWN)}
    return tuple(
        subject.model_copy(
            update={
                "prompts": tuple(
                    prompt.model_copy(update={"shown": (number, index) in shown})
                    for index, prompt in enumerate(subject.prompts)
                )
            }
        )
        for number, subject in enumerate(listed)
    )
