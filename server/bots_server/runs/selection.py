"""A selection: specified, drawn from a posterior, and taken from among the leases of others."""

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from secrets import randbits, token_hex

import numpy as np
from numpy.typing import NDArray

from bots_server.core.draw import Candidates, Counts, Draw, SelectionSpec, take
from bots_server.core.posterior import Posterior, alpha_beta
from bots_server.core.tasks import Tasks
from bots_server.errors import SHOWN_TAGS, TooFewEligible
from bots_server.storage.v1 import storage_pb2 as storage
from bots_server.store import NOBODY, Claim, Holder, Part, Store

MANY_STRATA = 65_536  # from here on a fold or a draw takes milliseconds
MANY_SELECTED = 1_000  # the same
SPARE = 8  # candidates beyond what is needed in the first claim
MAX_CLAIMS = 16  # each offers four times as many spare candidates as the one before: enough for any dataset

# Folding and drawing are hundreds of numpy calls on short arrays. Several threads at it spend more time passing the
# interpreter's lock around than computing, so one thread of the process computes at a time.
compute_lock = threading.Lock()


def computing(tasks: Tasks, *, long: bool = False) -> AbstractContextManager[object]:
    """Returns what to hold while computing: nothing for long computations, which leave the interpreter to others."""
    if long or len(tasks.strata) > MANY_STRATA or tasks.features is not None:
        return nullcontext()
    return compute_lock


@dataclass(frozen=True, eq=False)
class Selection:
    """A selection as it is answered.

    id:             names it in reports and leases
    version:        of the posterior that it was drawn from
    tasks:          `[n]` int64
    means:          `[n]` posterior means
    draws:          `[n]` drawn pass rates; NaN if none decided
    resting:        tasks that were still resting
    expire_time_ms: of its lease; 0: no lease
    """

    id: str
    version: int
    tasks: NDArray[np.int64]
    means: NDArray[np.float64]
    draws: NDArray[np.float64]
    resting: int
    expire_time_ms: int = 0


@dataclass(frozen=True, eq=False)
class Drawn:
    """A draw that no selection was taken from yet, and the selection that it comes to if no task is leased.

    seed:   of the draw. Further candidates are drawn again: the state of a draw takes 16 bytes a task if each has a
            posterior of its own, and freeing that of 1e6 tasks takes 3 ms
    counts: of all asked tags
    parts:  SPARE candidates more than are needed
    """

    posterior: Posterior
    spec: SelectionSpec
    seed: int
    counts: Counts
    parts: Sequence[Candidates]
    selection: Selection

    def again(self, tasks: Tasks) -> Draw:
        """Returns the draw, which can offer further candidates."""
        with _computing(self.posterior, tasks, self.spec):
            return Draw(np.random.default_rng(self.seed), self.posterior, tasks, self.spec)

    def offer(self, parts: Sequence[Candidates], tasks: Tasks) -> storage.Offer:
        """Returns candidates as a claim takes them."""
        candidates = np.concatenate([part.tasks for part in parts])
        return storage.Offer(
            selection_id=self.selection.id,
            version=self.selection.version,
            tasks=candidates.tolist(),
            means=means(self.posterior, tasks, candidates).tolist(),
            draws=np.concatenate([part.draws for part in parts]).tolist(),
            resting=np.concatenate([part.resting for part in parts]).tolist(),
        )


def draw(posterior: Posterior, tasks: Tasks, spec: SelectionSpec, seed: int | None = None) -> Drawn:
    """Returns a draw for a spec (guarantee 4)."""
    if seed is None:
        seed = randbits(128)
    with _computing(posterior, tasks, spec):
        drawing = Draw(np.random.default_rng(seed), posterior, tasks, spec)
        parts = drawing.offer(SPARE)
        chosen, draws, resting = take(parts)
        of = means(posterior, tasks, chosen)
    selection = Selection(token_hex(16), posterior.version, chosen, of, draws, resting)
    return Drawn(posterior, spec, seed, drawing.counts, parts, selection)


def _computing(posterior: Posterior, tasks: Tasks, spec: SelectionSpec) -> AbstractContextManager[object]:
    temperature = posterior.hyperparameters.temperature if spec.temperature is None else spec.temperature
    return computing(tasks, long=temperature > 0 or spec.batch_size > MANY_SELECTED)


def means(posterior: Posterior, tasks: Tasks, which: NDArray[np.int64]) -> NDArray[np.float64]:
    """Returns the posterior means of tasks."""
    alpha, beta = alpha_beta(posterior, tasks, which)
    return alpha / (alpha + beta)


@dataclass(frozen=True)
class ClaimTerms:
    """How a selection is claimed: under which id and digest, for whom, and for how long (None: no lease)."""

    request_id: str = ""
    digest: bytes = b""
    holder: Holder = NOBODY
    incarnation: str = ""
    lease_seconds: float | None = None


def unclaimed(drawn: Drawn, tasks: Tasks, *, allow_fewer: bool) -> Selection:
    """Returns the selection if no task of the run is leased. Raises TooFewEligible."""
    if len(drawn.selection.tasks) < drawn.spec.batch_size and not allow_fewer:
        parts = drawn.parts
        raise too_few(drawn, tasks, parts, [max(0, part.need - len(part.tasks)) for part in parts], leased=0)
    return drawn.selection


def claimed(
    store: Store, run: storage.RunRecord, drawn: Drawn, tasks: Tasks, terms: ClaimTerms, *, allow_fewer: bool
) -> tuple[Selection, Claim]:
    """Returns the selection that is taken from the tasks that no other selection leases. Raises TooFewEligible.

    Offers candidates, nearest first, until enough of them are free. If a part is short and has no further candidates,
    going on is of no use: the claim fails, or takes what there is if `allow_fewer`.
    """
    parts, spare, fewer = drawn.parts, SPARE, False
    drawing: Draw | None = None
    for _ in range(MAX_CLAIMS):
        with computing(tasks):
            offer = drawn.offer(parts, tasks)
        claim = store.leases.claim(
            run,
            [Part(part.need, part.tasks.tolist()) for part in parts],
            offer,
            request_id=terms.request_id,
            digest=terms.digest,
            holder=terms.holder,
            incarnation=terms.incarnation,
            lease_seconds=terms.lease_seconds,
            allow_fewer=fewer,
        )
        if claim.repeated or fewer or not any(claim.short):
            return taken(claim), claim
        short = [part for part, missing in zip(parts, claim.short, strict=True) if missing]
        if any(part.exhausted for part in short) and not allow_fewer:
            break
        fewer = all(part.exhausted for part in short)
        if not fewer:
            spare *= 4
            drawing = drawing or drawn.again(tasks)
            with computing(tasks):
                parts = drawing.offer(spare)
    raise too_few(drawn, tasks, parts, claim.short, claim.leased)


def taken(claim: Claim) -> Selection:
    """Returns the entries of an offer that a claim took."""
    offer, at = claim.offer, np.array(claim.taken, np.int64)
    return Selection(
        id=offer.selection_id,
        version=offer.version,
        tasks=np.array(offer.tasks, np.int64)[at],
        means=np.array(offer.means)[at],
        draws=np.array(offer.draws)[at],
        resting=int(np.count_nonzero(np.array(offer.resting, np.bool_)[at])),
        expire_time_ms=claim.expire_time_ms or 0,
    )


def too_few(
    drawn: Drawn, tasks: Tasks, parts: Sequence[Candidates], shortfall: Sequence[int], leased: int
) -> TooFewEligible:
    """Returns the error with the counts of the batch, and those of each tag that is short."""
    counts = drawn.counts
    message = (
        f"asked for: {counts.asked}, of these excluded {counts.excluded}, retired {counts.retired}, "
        f"resting {counts.resting}, eligible {counts.eligible}; leased: {leased}"
    )
    short = [pair for pair in zip(parts, shortfall, strict=True) if pair[1] and pair[0].tag is not None]
    for part, missing in short[:SHOWN_TAGS]:
        assert part.tag is not None
        message += f"; tag {tasks.tags[part.tag]!r} has {part.need - missing} of {part.need}"
    if len(short) > SHOWN_TAGS:
        message += f"; and {len(short) - SHOWN_TAGS} more"
    return TooFewEligible(drawn.spec.batch_size, message)
