"""Made-up text for pretraining: records and their sentences, questions, copying, rewriting, labels,
in many layouts.

Same seed, same text: `documents(Random(0), materials)` never depends on anything else.
"""

from collections.abc import Callable, Iterator
from random import Random

from edgeprefix.demo.pretraining.synthetic.copying import COPYING
from edgeprefix.demo.pretraining.synthetic.labelling import LABELLING
from edgeprefix.demo.pretraining.synthetic.questions import dialogue_task, question_task, which_task
from edgeprefix.demo.pretraining.synthetic.records import conversion_task, record_task, restatement
from edgeprefix.demo.pretraining.synthetic.rewriting import REWRITING
from edgeprefix.demo.pretraining.synthetic.task import Document, Materials, Task, write

__all__ = ["Document", "Materials", "Task", "choose_task", "documents", "write"]

_Maker = Callable[[Random, Materials], Task]


def _without_materials(maker: Callable[[Random], Task]) -> _Maker:
    return lambda rng, materials: maker(rng)


_record, _back, _convert, _prose = (
    _without_materials(maker)
    for maker in (
        record_task,
        lambda rng: record_task(rng, back=True),
        conversion_task,
        restatement,
    )
)
_questions = tuple(
    _without_materials(maker) for maker in (question_task, question_task, dialogue_task, which_task)
)

# Weights are shares of documents; record documents are longer than the others.
_KINDS: tuple[tuple[float, tuple[_Maker, ...]], ...] = (
    (0.40, (_record,)),
    (0.04, (_back,)),
    (0.03, (_convert,)),
    (0.02, (_prose,)),
    (0.08, _questions),
    (0.15, COPYING),
    (0.15, REWRITING),
    (0.15, LABELLING),
)


def choose_task(rng: Random, materials: Materials) -> Task:
    """Return a task of a random kind."""
    groups = [makers for _, makers in _KINDS]
    makers = rng.choices(groups, [weight for weight, _ in _KINDS])[0]
    return rng.choice(makers)(rng, materials)


def documents(rng: Random, materials: Materials) -> Iterator[Document]:
    """Yield documents without end."""
    while True:
        yield write(rng, choose_task(rng, materials))
