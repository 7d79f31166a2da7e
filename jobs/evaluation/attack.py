"""Attacking an edit: for each concept, how often it is drawn plainly and under either attack."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch

from engine.editing.delta import read_delta, replaced
from engine.editing.prompts import plain_phrase
from engine.evaluation import inversion as attack
from engine.evaluation import prompt_search
from engine.evaluation.recognition import Share, choice_texts, share_shown
from engine.model import sampling
from engine.model.model import Conditioning, Diffusion
from engine.model.opening import open_model
from engine.model.scorer import Scorer, open_scorer
from engine.model.seeds import derived_seed
from jobs.evaluation.attack_plan import OPENING, AttackJob, attack_ids, caption_of
from jobs.evaluation.attack_table import AttackTable, Row
from jobs.runs.progress import Note, Progress
from schemas.attack import Attack, Side
from schemas.concept import Concept

ROWS = 16
"""Images that are drawn at once."""


def attack_edit(
    job: AttackJob, *, on_progress: Callable[[Progress], None], note: Note
) -> list[Row]:
    """Attack the concepts that the edit's table lacks, and return the rows of all of them.

    Rows are written concept by concept, so that the same job goes on where it was cut short.
    """
    table = AttackTable(job.edit)
    ids = attack_ids(job)
    done = table.rows(ids.values())
    todo = [c for c in job.attacked if not any(row["attack_id"] == ids[c] for row in done)]
    if len(todo) < len(job.attacked):
        note(f"{len(job.attacked) - len(todo)} of {len(job.attacked)} concepts are done already")
    if todo:
        steps = _steps(len(todo) * job.steps, on_progress)
        attacker = open_attacker(job, tick=lambda: next(steps, None))
        for concept in todo:
            table.add([{"attack_id": ids[concept]} | row for row in attacker.rows(concept)])
    return table.rows(ids.values())


def _steps(total: int, on_progress: Callable[[Progress], None]) -> Iterator[None]:
    for done in range(1, total + 1):
        on_progress(Progress(done=done, failed=0, total=total))
        yield


def open_attacker(job: AttackJob, *, tick: attack.Tick = lambda: None) -> "Attacker":
    """Return what attacks the job's concepts, with its model, delta and scorer opened."""
    model = open_model(job.model)
    return Attacker(
        job=job,
        model=model,
        weights=read_delta(job.edit, model),
        scorer=open_scorer(job.scorer, device=model.device),
        tick=tick,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What stands in the concept's place, and how it was found."""

    prompt: str
    cond: Conditioning
    steps: int = 0
    seconds: float = 0.0
    before: float | None = None
    after: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attacker:
    """An opened model with the weights of its edit."""

    job: AttackJob
    model: Diffusion
    weights: Mapping[str, torch.Tensor]
    scorer: Scorer
    tick: attack.Tick

    def rows(self, concept: Concept) -> Iterator[Row]:
        """Yield the rows of a concept: the unedited model's first, then the edited one's."""
        caption = caption_of(concept, self.job.book)
        texts = choice_texts(concept, self.job.names[concept.kind], book=self.job.book)
        goal = prompt_search.read_goal(self.model, caption)
        inverts = Attack.EMBEDDING in self.job.attacks
        x0_RChw = self._latents(goal.cond) if inverts else None
        for side in Side:
            with replaced(self.model, self.weights if side is Side.EDITED else {}):
                for kind, found in self._found(concept, goal, x0_RChw):
                    share = share_shown(self._draw(found.cond), texts, self.scorer)
                    yield _row(concept, side, kind, found, share)

    def _found(
        self, concept: Concept, goal: prompt_search.Goal, x0_RChw: torch.Tensor | None
    ) -> Iterator[tuple[Attack, _Found]]:
        plain = goal.caption.caption
        yield Attack.PLAIN, _Found(prompt=plain, cond=self._encode(plain))
        # Both models are attacked from one start, with one sequence of draws.
        seed = derived_seed("attack", concept.concept)
        if x0_RChw is not None:
            yield from self._embeddings(concept, x0_RChw, seed)
        if Attack.PROMPT in self.job.attacks:
            yield Attack.PROMPT, self._searched(goal, seed)

    def _embeddings(
        self, concept: Concept, x0_RChw: torch.Tensor, seed: int
    ) -> Iterator[tuple[Attack, _Found]]:
        phrase = plain_phrase(attack.STAND_IN, kind=concept.kind, book=self.job.book)
        prompt = f"{OPENING} {phrase}"
        slot = attack.open_slot(self.model, prompt)
        start = attack.random_vectors(self.model, torch.Generator().manual_seed(seed))
        yield Attack.RANDOM, _Found(prompt=prompt, cond=self._slot(slot, start))
        begun = time.perf_counter()
        found = attack.invert(
            self.model,
            slot,
            x0_RChw,
            start=start,
            budget=self.job.inversion,
            numerics=self.job.numerics,
            seed=seed,
            tick=self.tick,
        )
        yield (
            Attack.EMBEDDING,
            _Found(
                prompt=prompt,
                cond=self._slot(slot, found.vectors),
                steps=self.job.inversion.steps,
                seconds=time.perf_counter() - begun,
                before=found.loss_before,
                after=found.loss_after,
            ),
        )

    def _searched(self, goal: prompt_search.Goal, seed: int) -> _Found:
        begun = time.perf_counter()
        found = prompt_search.search_prompt(
            self.model, goal, budget=self.job.search, seed=seed, tick=self.tick
        )
        return _Found(
            prompt=found.prompt,
            cond=self._encode(found.prompt),
            steps=self.job.search.steps,
            seconds=time.perf_counter() - begun,
            before=found.distance_before,
            after=found.distance_after,
        )

    @torch.no_grad()
    def _encode(self, prompt: str) -> Conditioning:
        return sampling.encode(self.model, [prompt])

    @torch.no_grad()
    def _slot(self, slot: attack.Slot, vectors: tuple[torch.Tensor, ...]) -> Conditioning:
        return attack.encode_slot(self.model, slot, vectors)

    @torch.no_grad()
    def _latents(self, cond: Conditioning) -> torch.Tensor:
        """Return latents of the concept's images; their seeds are not those that are judged."""
        return self._sample(cond, [self.job.seeds + n for n in range(self.job.inversion.images)])

    @torch.no_grad()
    def _draw(self, cond: Conditioning) -> torch.Tensor:
        latents_RChw = self._sample(cond, list(range(self.job.seeds)))
        return sampling.decode(self.model, latents_RChw)

    def _sample(self, cond: Conditioning, seeds: list[int]) -> torch.Tensor:
        rows = cond.take([0] * len(seeds))
        return sampling.sample(self.model, rows, seeds=seeds, numerics=self.job.numerics, rows=ROWS)


def _row(concept: Concept, side: Side, kind: Attack, found: _Found, share: Share) -> Row:
    low, high = share.interval
    return {
        "concept": concept.concept,
        "kind": concept.kind.value,
        "side": side.value,
        "attack": kind.value,
        "shown": share.shown,
        "images": share.images,
        "success": share.rate,
        "low": low,
        "high": high,
        "prompt": found.prompt,
        "steps": found.steps,
        "seconds": found.seconds,
        "objective_before": found.before,
        "objective_after": found.after,
    }
