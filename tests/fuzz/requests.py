"""Requests of any method, made from the descriptors: values at and beyond each rule in every field.

A request begins empty or as one that is valid in its world, and then some of its fields, chosen at any depth, get
arbitrary values. A field that is added to the proto is covered without a change here. What is chosen is drawn from a
`Random`, which Hypothesis and the coverage-guided fuzzer both have.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from bots.v1 import task_selection_pb2 as pb
from tests.api.service import dataset_parts

SERVICE = pb.DESCRIPTOR.services_by_name["TaskSelectionService"]
IDS = [f"task-{n}" for n in range(24)]
TAGS = ["easy", "hard"]
REQUEST_IDS = [f"{n:08d}-0000-4000-8000-000000000000" for n in range(3)]

INTEGERS = [-(2**63), -1, 0, 1, 2, 23, 24, 64, 1000, 1001, 10_000, 10_001, 100_000_001, 10**14, 2**53, 2**63 - 1]
LENGTHS = [0, 1, 2, 24, 1025, 10_001, 100_001]
NUMBERS = [
    *(float("nan"), float("inf"), float("-inf"), -0.0, 0.0, -1.0, 5e-324, 1e-300, 1e-9, 0.1, 0.5, 1.0, 1 + 2**-52, 2.0),
    *(64.0, 3_600.0, 86_400.0, 1e6, 1e9, 315_360_000.0, 1e12, 3e38, 1e300, 1.7e308),
]
TEXTS = ["", "\0", "a\nb", "\x1b[2J", "\u2028", "é" * 63, "😀" * 64, "x" * 65, "x" * 257, "x" * 20_000, "9" * 64, "-1"]
# By the C++ type of a field: narrower types take what fits.
LIMITS = {FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1), FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1)}


@dataclass(repr=False)
class World:
    """What requests may name.

    words:    by the name of a field, the values that exist
    versions: that events made
    """

    words: dict[str, list[str]] = field(
        default_factory=lambda: {
            "dataset": ["rich", "bare", "wide", "tiny", "gone"],
            "run": ["model", "mixed", "gone"],
            "name": ["model", "mixed", "rich", "bare", "wide", "tiny", "new"],
            "checkpoint": ["new", "kept"],
            "request_id": list(REQUEST_IDS),
            "ids": IDS,
            "excluded_ids": IDS,
            "tags": TAGS,
            "key": TAGS,
            "references": ["weak", "strong"],
            "job": ["one", "two"],
            "incarnation": ["first", "second"],
            "uid": ["0" * 32],
            "selection_id": ["0" * 32],
            "page_token": ["1", "model"],
        }
    )

    versions: list[int] = field(default_factory=lambda: list(range(1, 9)))

    def version(self, random: Random) -> int:
        """Draws one of the newest versions."""
        return self.versions[-random.randint(1, 8)]

    def word(self, random: Random, of: str) -> str:
        """Draws a word of a field. What is drawn from `random` does not depend on how many there are by now."""
        words = self.words[of]
        return words[random.randint(0, 255) % len(words)]


def text(random: Random, name: str, world: World) -> str:
    """Draws a string for a field of this name."""
    way = random.randint(0, 3)
    if way == 0:
        return "".join(chr(random.randint(0, 0xD7FF)) for _ in range(random.randint(0, 4)))
    return world.word(random, name) if name in world.words and way > 1 else random.choice(TEXTS)


def scalar(random: Random, of: FieldDescriptor, world: World) -> Any:
    """Draws any value of a field's type."""
    match of.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING if of.type == FieldDescriptor.TYPE_BYTES:
            return random.choice([b"", b"x", bytes(32), bytes(20_000)])
        case FieldDescriptor.CPPTYPE_STRING:
            return text(random, of.name, world)
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return random.choice([random.choice(NUMBERS), random.random()])
        case FieldDescriptor.CPPTYPE_BOOL:
            return random.choice([False, True])
        case FieldDescriptor.CPPTYPE_ENUM:
            return random.randint(-1, 3)
    low, high = LIMITS.get(of.cpp_type, (-(2**63), 2**63 - 1))
    return min(max(random.choice([random.choice(INTEGERS), random.randint(0, 30)]), low), high)


def change(random: Random, message: Message, world: World) -> None:
    """Gives one field of a message, at any depth, an arbitrary value; a message without fields stays as it is."""
    fields: list[Any] = list(message.DESCRIPTOR.fields)
    if not fields:
        return
    of = random.choice(fields + fields[1:])  # the first one is the run, without which nothing else is looked at
    value = getattr(message, of.name)
    if of.message_type is not None and of.message_type.GetOptions().map_entry:
        key, entry = of.message_type.fields_by_name["key"], of.message_type.fields_by_name["value"]
        for _ in range(random.randint(1, 3)):
            value[scalar(random, key, world)] = scalar(random, entry, world)
    elif of.message_type is not None:
        if random.randint(0, 1):
            value.SetInParent()
        change(random, value, world)
    elif of.is_repeated:
        some = [scalar(random, of, world) for _ in range(random.randint(1, 3))]
        way = random.choice(["replace", "append", "one", "clear", "long"])
        if way == "one" and value:
            value[random.randint(0, len(value) - 1)] = some[0]
        elif way == "append":
            value.extend(some)
        else:
            long = some[:1] * random.choice(LENGTHS) if len(str(some[0])) < 100 else some
            value[:] = {"long": long, "clear": []}.get(way, some)
    else:
        setattr(message, of.name, scalar(random, of, world))


def requests(random: Random, method: str, world: World) -> list[Message]:
    """Draws requests of a method: one, or for CreateDataset those of a stream."""
    kind: Descriptor = SERVICE.methods_by_name[method].input_type
    messages = [GetMessageClass(kind)()] if random.randint(0, 9) == 0 else VALID[method](random, world)
    for _ in range(random.choice([0, 0, 1, 1, 1, 2, 4])):
        if messages:
            change(random, random.choice(messages), world)
    if len(messages) > 1 and random.randint(0, 9) == 0:
        messages = random.sample(messages, random.randint(0, len(messages)))
    return messages


def some_of(random: Random, **values: Sequence[Any]) -> dict[str, Any]:
    """Draws values for some of these fields."""
    return {name: random.choice(of) for name, of in values.items() if random.randint(0, 1)}


def ref(random: Random) -> pb.RunRef:
    """Draws the name of a run that exists at first."""
    dataset, name = random.choice(
        [("rich", "model"), ("rich", "mixed"), ("bare", "model"), ("wide", "model"), ("tiny", "model")]
    )
    return pb.RunRef(dataset=dataset, name=name)


def tasks(random: Random) -> list[int]:
    """Draws tasks, most of which most datasets have."""
    return [random.choice([0, random.randint(0, 23)]) for _ in range(random.randint(1, 6))]


def learning(random: Random) -> pb.Hyperparameters:
    """Draws hyperparameters within their rules."""
    share = [0.0, 1e-300, 0.1, 0.5, 1.0]
    values = some_of(
        random,
        target=share,
        rest=share,
        uniform_fraction=share,
        temperature=[0.0, 5e-324, 0.1, 1e6],
        greedy=[False, True],
        rollouts_per_update=[0, 1, 40, 10**6],
    )
    return pb.Hyperparameters(**values)


def of_model(random: Random) -> pb.Hyperparameters:
    """Draws hyperparameters of one model, as a rule."""
    share = [0.0, 5e-324, 0.1, 0.99, 1.0]
    values = learning(random)
    names = random.choice([("forgetting", "implicit_weight", "implicit_rollouts"), ("residual_memory", "drift")])
    values.MergeFrom(pb.Hyperparameters(**some_of(random, **dict.fromkeys(names, share))))
    return values


def upload(random: Random, world: World) -> list[Message]:
    """Draws a dataset of one chunk, with any of the columns."""
    size = random.choice([1, 2, 24])
    rates = [[random.choice([0.0, 0.25, 1.0, float("nan")]) for _ in range(size)] for _ in range(2)]
    numbers = [[random.choice([0.0, 1.0, -1e-30, 3e38, -3e38, float("nan")]) for _ in range(size)] for _ in range(2)]
    columns = some_of(
        random,
        ids=[IDS[:size]],
        tags=[[random.choice(TAGS) for _ in range(size)]],
        references=[dict(zip(["weak", "strong"], rates, strict=True)), {"weak": rates[0]}],
        features=[dict(zip(["length", "steps"], numbers, strict=True)), {"length": numbers[0]}],
        prior=[(0.1, 0.1), (1e6, 0.1), (1e6, 1e6)],
        reference_grid=[5e-324, 1 / 64, 0.5],
    )
    header, chunk = dataset_parts(random.choice(["new", "bare"]), size, **columns)
    return [pb.CreateDatasetRequest(header=header), pb.CreateDatasetRequest(chunk=chunk)]


def create_run(random: Random, world: World) -> list[Message]:
    dataset, name = random.choice(["rich", "bare", "wide", "tiny", "new"]), random.choice(["model", "new"])
    request = pb.CreateRunRequest(dataset=dataset, name=name, hyperparameters=learning(random))
    if random.randint(0, 1):
        source = ref(random)
        request.fork_from.dataset, request.fork_from.run = source.dataset, source.name
    return [request]


def select(random: Random, world: World) -> list[Message]:
    request = pb.SelectBatchRequest(
        run=ref(random),
        batch_size=random.randint(1, 12),
        **some_of(random, allow_fewer=[True], lease_seconds=[5e-324, 0.5, 3_600.0]),
        **asking(random),
    )
    match random.choice(["", "any_of", "quotas", "weights"]):
        case "any_of":
            request.any_of.tags.append(random.choice(TAGS))
        case "quotas":
            easy = random.randint(0, request.batch_size)
            request.quotas.tasks.update({"easy": easy, "hard": request.batch_size - easy})
        case "weights":
            request.weights.weights.update({tag: random.choice([0.0, 5e-324, 1.0, 1.7e308]) for tag in TAGS})
    request.fill = request.WhichOneof("tags") in ("quotas", "weights") and random.choice([False, True])
    if random.randint(0, 1):
        request.tag_targets["easy"] = random.random()
    return [request]


def asking(random: Random) -> dict[str, Any]:
    """Draws who asks, and under which id."""
    return some_of(random, job=["one", "two"], incarnation=["first", "second"], request_id=REQUEST_IDS)


def report(random: Random, world: World) -> list[Message]:
    given = tasks(random)
    rollouts = [random.choice([1, 8, 1_000_000]) for _ in given]
    share = random.choice([0.0, 0.5, 1.0])
    request = pb.ReportOutcomesRequest(
        run=ref(random), tasks=given, rollouts=rollouts, successes=[share * count for count in rollouts]
    )
    if random.randint(0, 1):
        request.selection_id = world.word(random, "selection_id")
    if random.randint(0, 1):
        request.request_id = random.choice(REQUEST_IDS)
    return [request]


def restore(random: Random, world: World) -> list[Message]:
    names = {name: value for name, value in asking(random).items() if name != "incarnation"}
    request = pb.RestoreRunRequest(run=ref(random), **names)
    if random.randint(0, 1):
        request.checkpoint = random.choice(["new", "kept"])
    else:
        request.version = world.version(random)
    return [request]


def of_run(method: str, /, **fields: Callable[[Random], Any]) -> Callable[[Random, World], list[Message]]:
    """Returns what draws a request that names a run and has these fields."""
    kind: type[Any] = getattr(pb, f"{method}Request")
    return lambda random, world: [kind(run=ref(random), **{key: make(random) for key, make in fields.items()})]


def named(method: str, /, **fields: str) -> Callable[[Random, World], list[Message]]:
    """Returns what draws a request with the words of these fields."""
    kind: type[Any] = getattr(pb, f"{method}Request")
    return lambda random, world: [kind(**{key: world.word(random, of) for key, of in fields.items()})]


def one_of(*values: Any) -> Callable[[Random], Any]:
    """Returns what draws one of these values."""
    return lambda random: random.choice(values)


# A request that the rules allow, by method; CreateDataset's are several.
VALID: dict[str, Callable[[Random, World], list[Message]]] = {
    "CreateDataset": upload,
    "GetDataset": named("GetDataset", name="dataset"),
    "ListDatasets": named("ListDatasets"),
    "DeleteDataset": named("DeleteDataset", name="dataset"),
    "CreateRun": create_run,
    "GetRun": of_run("GetRun"),
    "ListRuns": named("ListRuns", dataset="dataset"),
    "UpdateRun": of_run("UpdateRun", hyperparameters=of_model),
    "DeleteRun": of_run("DeleteRun"),
    "SelectBatch": select,
    "ReportOutcomes": report,
    "ReleaseSelection": lambda random, world: [
        pb.ReleaseSelectionRequest(run=ref(random), selection_id=world.word(random, "selection_id"))
    ],
    "RetireTasks": of_run("RetireTasks", tasks=tasks, undo=one_of(False, True)),
    "GetPosteriors": of_run("GetPosteriors", tasks=tasks),
    "GetRunSummary": of_run("GetRunSummary"),
    "WatchRun": of_run("WatchRun"),
    "CreateCheckpoint": of_run("CreateCheckpoint", name=one_of("new", "kept")),
    "ListCheckpoints": of_run("ListCheckpoints"),
    "DeleteCheckpoint": of_run("DeleteCheckpoint", name=one_of("new", "kept")),
    "RestoreRun": restore,
    "UndoReport": lambda random, world: [pb.UndoReportRequest(run=ref(random), version=world.version(random))],
    "ListLeases": of_run("ListLeases"),
    "EndLeases": of_run("EndLeases", job=one_of("", "one", "two")),
    "ListEvents": of_run("ListEvents"),
    "GetServer": named("GetServer"),
}
# What is called more often, because runs move by it.
OFTEN = [
    "SelectBatch",
    "ReportOutcomes",
    "SelectBatch",
    "ReportOutcomes",
    "RestoreRun",
    "UndoReport",
    "RetireTasks",
    "UpdateRun",
]
METHODS = [*VALID, *OFTEN]
