"""The worker of an attack: it searches for a concept in both models and scores their images."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from engine.editing.delta import replaced
from engine.editing.prompts import plain_phrase
from engine.evaluation import inversion as attack
from engine.evaluation import prompt_search
from engine.evaluation.recognition import Share, choice_texts, share_shown
from engine.model import sampling
from engine.model.calibration import BatchRows
from engine.model.conditioning import Conditioning
from engine.model.hub import source_folder
from engine.model.opening import open_model
from engine.model.scorer import open_scorer
from engine.model.seeds import derived_seed
from engine.model.vocabulary import read_phrasebook
from jobs.evaluation.attack_plan import OPENING, caption_of
from jobs.evaluation.worker import one_thread_on_a_cpu, read_planned_delta
from jobs.pool.worker import Worker
from jobs.runs.attack_run import AttackRun, open_attack
from jobs.runs.run import IdentifiedUnit, Row
from schemas.attack import Attack, AttackRow, Side
from schemas.concept import Concept

ROWS = 16
"""Number of images that are drawn at once."""


class AttackWorker(Worker[Concept]):
    """A worker that attacks the concepts of an edit."""

    def __init__(self, location: str, *, edit: str, threads: int) -> None:
        """Open the scorer, the model and the delta in the folder `edit`.

        ModelUnavailable, ConceptError: one of them cannot be opened, or the delta is another
        edit's.
        """
        run = open_attack(location)
        super().__init__(run, Attacker(run, Path(edit)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Substitute:
    """The text or embedding in the concept's place, and the cost and success of its search."""

    prompt: str
    cond: Conditioning
    steps: int = 0
    seconds: float = 0.0
    before: float | None = None
    after: float | None = None


class Attacker:
    """Attacks concepts on this process's device, in the unedited and in the edited model."""

    def __init__(self, run: AttackRun, edit: Path) -> None:
        one_thread_on_a_cpu()
        self._plan = run.plan
        self._model = open_model(self._plan.model, dtype=self._plan.numerics.dtype)
        self._weights = read_planned_delta(edit, self._model, planned=self._plan.edit)
        self._scorer = open_scorer(self._plan.scorer, device=self._model.device)
        self._book = read_phrasebook(source_folder(self._plan.model))
        self._rows = BatchRows(ROWS, least=1)

    def score_rows(self, row: IdentifiedUnit[Concept]) -> list[Row]:
        """Return the rows of a concept: the unedited model's first, then the edited one's."""
        return [asdict(measured) for measured in self._attacked(row)]

    def _attacked(self, row: IdentifiedUnit[Concept]) -> Iterator[AttackRow]:
        concept = row.unit
        caption = caption_of(concept, self._book)
        texts = choice_texts(concept, self._plan.names[concept.kind], book=self._book)
        goal = prompt_search.read_goal(self._model, caption)
        inverts = Attack.EMBEDDING in self._plan.attacks
        x0_RChw = self._latents(goal.cond) if inverts else None
        for side in Side:
            with replaced(self._model, self._weights if side is Side.EDITED else {}):
                for kind, substitute in self._substitutes(concept, goal, x0_RChw):
                    share = share_shown(self._draw(substitute.cond), texts, self._scorer)
                    yield _row(row, side, kind, substitute, share)

    def _substitutes(
        self, concept: Concept, goal: prompt_search.Goal, x0_RChw: torch.Tensor | None
    ) -> Iterator[tuple[Attack, _Substitute]]:
        plain = goal.caption.caption
        yield Attack.PLAIN, _Substitute(prompt=plain, cond=self._encode(plain))
        # Both models are attacked from one start, with one sequence of draws.
        seed = derived_seed("attack", concept.concept)
        if x0_RChw is not None:
            yield from self._embeddings(concept, x0_RChw, seed)
        if Attack.PROMPT in self._plan.attacks:
            yield Attack.PROMPT, self._searched(goal, seed)

    def _embeddings(
        self, concept: Concept, x0_RChw: torch.Tensor, seed: int
    ) -> Iterator[tuple[Attack, _Substitute]]:
        phrase = plain_phrase(attack.STAND_IN, kind=concept.kind, book=self._book)
        prompt = f"{OPENING} {phrase}"
        slot = attack.open_slot(self._model, prompt)
        start = attack.random_vectors(self._model, torch.Generator().manual_seed(seed))
        yield Attack.RANDOM, _Substitute(prompt=prompt, cond=self._slot(slot, start))
        begun = time.perf_counter()
        inversion = attack.invert(
            self._model,
            slot,
            x0_RChw,
            start=start,
            budget=self._plan.inversion,
            numerics=self._plan.numerics,
            seed=seed,
        )
        yield (
            Attack.EMBEDDING,
            _Substitute(
                prompt=prompt,
                cond=self._slot(slot, inversion.vectors),
                steps=self._plan.inversion.steps,
                seconds=time.perf_counter() - begun,
                before=inversion.loss_before,
                after=inversion.loss_after,
            ),
        )

    def _searched(self, goal: prompt_search.Goal, seed: int) -> _Substitute:
        begun = time.perf_counter()
        result = prompt_search.search_prompt(self._model, goal, budget=self._plan.search, seed=seed)
        return _Substitute(
            prompt=result.prompt,
            cond=self._encode(result.prompt),
            steps=self._plan.search.steps,
            seconds=time.perf_counter() - begun,
            before=result.distance_before,
            after=result.distance_after,
        )

    @torch.no_grad()
    def _encode(self, prompt: str) -> Conditioning:
        return sampling.encode(self._model, [prompt])

    @torch.no_grad()
    def _slot(self, slot: attack.Slot, vectors: tuple[torch.Tensor, ...]) -> Conditioning:
        return attack.encode_slot(self._model, slot, vectors)

    @torch.no_grad()
    def _latents(self, cond: Conditioning) -> torch.Tensor:
        """Return latents of the concept's images, from other seeds than the judged images."""
        return self._sample(
            cond, [self._plan.seeds + n for n in range(self._plan.inversion.images)]
        )

    @torch.no_grad()
    def _draw(self, cond: Conditioning) -> torch.Tensor:
        latents_RChw = self._sample(cond, range(self._plan.seeds))
        return sampling.decode(self._model, latents_RChw)

    def _sample(self, cond: Conditioning, seeds: Sequence[int]) -> torch.Tensor:
        rows = cond.take([0] * len(seeds))
        return self._rows.fit(
            lambda size: sampling.sample(
                self._model, rows, seeds=seeds, numerics=self._plan.numerics, rows=size
            )
        )


def _row(
    row: IdentifiedUnit[Concept], side: Side, kind: Attack, substitute: _Substitute, share: Share
) -> AttackRow:
    low, high = share.interval
    return AttackRow(
        unit_id=row.unit_id,
        concept=row.unit.concept,
        kind=row.unit.kind.value,
        side=side.value,
        attack=kind.value,
        shown=share.shown,
        images=share.images,
        success=share.rate,
        low=low,
        high=high,
        prompt=substitute.prompt,
        steps=substitute.steps,
        seconds=substitute.seconds,
        objective_before=substitute.before,
        objective_after=substitute.after,
    )
