"""Requests of any method, made from the descriptors: values at and beyond each rule in every field.

A request begins empty or as one that is valid in its world, and then some of its fields, chosen at any depth, get
arbitrary values. A field that is added to the proto is covered without a change here.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

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
    """What requests may name: by the name of a field, the values that exist."""

    words: dict[str, list[str]] = field(
        default_factory=lambda: {
            "dataset": ["rich", "bare", "tiny", "gone"],
            "run": ["model", "mixed", "gone"],
            "name": ["model", "mixed", "rich", "bare", "tiny", "new"],
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

    def word(self, of: str) -> st.SearchStrategy[str]:
        """Returns what draws a word of a field. What it draws does not depend on how many there are by now."""
        words = self.words[of]
        return st.integers(0, 255).map(lambda number: words[number % len(words)])


def text(draw: st.DrawFn, name: str, world: World) -> str:
    """Draws a string for a field of this name."""
    known = world.word(name) if name in world.words else st.sampled_from(TEXTS)
    return draw(known | known | st.sampled_from(TEXTS) | st.text(max_size=4))


def scalar(draw: st.DrawFn, of: FieldDescriptor, world: World) -> Any:
    """Draws any value of a field's type."""
    match of.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING if of.type == FieldDescriptor.TYPE_BYTES:
            return draw(st.sampled_from([b"", b"x", bytes(32), bytes(20_000)]))
        case FieldDescriptor.CPPTYPE_STRING:
            return text(draw, of.name, world)
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return draw(st.sampled_from(NUMBERS) | st.floats(0, 1))
        case FieldDescriptor.CPPTYPE_BOOL:
            return draw(st.booleans())
        case FieldDescriptor.CPPTYPE_ENUM:
            return draw(st.integers(0, 3) | st.just(-1))
    low, high = LIMITS.get(of.cpp_type, (-(2**63), 2**63 - 1))
    return min(max(draw(st.sampled_from(INTEGERS) | st.integers(0, 30)), low), high)


def change(draw: st.DrawFn, message: Message, world: World) -> None:
    """Gives one field of a message, at any depth, an arbitrary value; a message without fields stays as it is."""
    fields: list[Any] = list(message.DESCRIPTOR.fields)
    if not fields:
        return
    of = draw(st.sampled_from(fields + fields[1:]))  # the first one is the run, without which nothing else is looked at
    value = getattr(message, of.name)
    if of.message_type is not None and of.message_type.GetOptions().map_entry:
        key, entry = of.message_type.fields_by_name["key"], of.message_type.fields_by_name["value"]
        for _ in range(draw(st.integers(1, 3))):
            value[scalar(draw, key, world)] = scalar(draw, entry, world)
    elif of.message_type is not None:
        if draw(st.booleans()):
            value.SetInParent()
        change(draw, value, world)
    elif of.is_repeated:
        some = [scalar(draw, of, world) for _ in range(draw(st.integers(1, 3)))]
        way = draw(st.sampled_from(["replace", "append", "one", "clear", "long"]))
        if way == "one" and value:
            value[draw(st.integers(0, len(value) - 1))] = some[0]
        elif way == "append":
            value.extend(some)
        else:
            long = some[:1] * draw(st.sampled_from(LENGTHS)) if len(str(some[0])) < 100 else some
            value[:] = {"long": long, "clear": []}.get(way, some)
    else:
        setattr(message, of.name, scalar(draw, of, world))


@st.composite
def requests(draw: st.DrawFn, method: str, world: World) -> list[Message]:
    """Requests of a method: one, or for CreateDataset those of a stream."""
    kind: Descriptor = SERVICE.methods_by_name[method].input_type
    messages = [GetMessageClass(kind)()] if draw(st.integers(0, 9)) == 0 else VALID[method](draw, world)
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 1, 2, 4]))):
        if messages:
            change(draw, draw(st.sampled_from(messages)), world)
    if len(messages) > 1 and draw(st.integers(0, 9)) == 0:
        messages = draw(st.permutations(messages))[: draw(st.integers(0, len(messages)))]
    return messages


def ref(draw: st.DrawFn) -> pb.RunRef:
    """Draws the name of a run that exists at first."""
    dataset, name = draw(st.sampled_from([("rich", "model"), ("rich", "mixed"), ("bare", "model"), ("tiny", "model")]))
    return pb.RunRef(dataset=dataset, name=name)


def tasks(draw: st.DrawFn) -> list[int]:
    """Draws tasks, most of which most datasets have."""
    return draw(st.lists(st.integers(0, 23) | st.just(0), min_size=1, max_size=6))


def learning(draw: st.DrawFn) -> pb.Hyperparameters:
    """Draws hyperparameters within their rules."""
    share = st.sampled_from([0.0, 1e-300, 0.1, 0.5, 1.0])
    values: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
        {},
        optional={
            "target": share,
            "rest": share,
            "uniform_fraction": share,
            "temperature": st.sampled_from([0.0, 5e-324, 0.1, 1e6]),
            "greedy": st.booleans(),
            "rollouts_per_update": st.sampled_from([0, 1, 40, 10**6]),
        },
    )
    return pb.Hyperparameters(**draw(values))


def of_model(draw: st.DrawFn) -> pb.Hyperparameters:
    """Draws hyperparameters of one model, as a rule."""
    share = st.sampled_from([0.0, 5e-324, 0.1, 0.99, 1.0])
    one: st.SearchStrategy[dict[str, Any]]
    other: st.SearchStrategy[dict[str, Any]]
    one = st.fixed_dictionaries({"forgetting": share, "implicit_weight": share}, optional={"implicit_rollouts": share})
    other = st.fixed_dictionaries({"residual_memory": share, "drift": share})
    values = learning(draw)
    values.MergeFrom(pb.Hyperparameters(**draw(one | other)))
    return values


def upload(draw: st.DrawFn, world: World) -> list[Message]:
    """Draws a dataset of one chunk, with any of the columns."""
    size = draw(st.sampled_from([1, 2, 24]))
    rate = st.sampled_from([0.0, 0.25, 1.0, float("nan")])
    number = st.sampled_from([0.0, 1.0, -1e-30, 3e38, -3e38, float("nan")])
    columns: dict[str, Any] = draw(
        st.fixed_dictionaries(
            {"reference_grid": st.sampled_from([0.0, 5e-324, 1 / 64, 0.5])},
            optional={
                "ids": st.just(IDS[:size]),
                "tags": st.lists(st.sampled_from(TAGS), min_size=size, max_size=size),
                "references": st.dictionaries(
                    st.sampled_from(["weak", "strong"]), st.lists(rate, min_size=size, max_size=size)
                ),
                "features": st.dictionaries(
                    st.sampled_from(["length", "steps"]), st.lists(number, min_size=size, max_size=size)
                ),
                "prior": st.sampled_from([(0.1, 0.1), (1e6, 0.1), (1e6, 1e6)]),
            },
        )
    )
    header, chunk = dataset_parts(draw(st.sampled_from(["new", "bare"])), size, **columns)
    return [pb.CreateDatasetRequest(header=header), pb.CreateDatasetRequest(chunk=chunk)]


def create_run(draw: st.DrawFn, world: World) -> list[Message]:
    dataset, name = draw(st.sampled_from(["rich", "bare", "tiny", "new"])), draw(st.sampled_from(["model", "new"]))
    request = pb.CreateRunRequest(dataset=dataset, name=name, hyperparameters=learning(draw))
    if draw(st.booleans()):
        source = ref(draw)
        request.fork_from.dataset, request.fork_from.run = source.dataset, source.name
    return [request]


def select(draw: st.DrawFn, world: World) -> list[Message]:
    request = pb.SelectBatchRequest(
        run=ref(draw), batch_size=draw(st.integers(1, 12)), allow_fewer=draw(st.booleans()), **asking(draw, world)
    )
    if draw(st.booleans()):
        request.lease_seconds = draw(st.sampled_from([5e-324, 0.5, 3_600.0]))
    match draw(st.sampled_from(["", "any_of", "quotas", "weights"])):
        case "any_of":
            request.any_of.tags.append(draw(st.sampled_from(TAGS)))
        case "quotas":
            easy = draw(st.integers(0, request.batch_size))
            request.quotas.tasks.update({"easy": easy, "hard": request.batch_size - easy})
        case "weights":
            weight = st.sampled_from([0.0, 5e-324, 1.0, 1.7e308])
            request.weights.weights.update({tag: draw(weight) for tag in TAGS})
    request.fill = request.WhichOneof("tags") in ("quotas", "weights") and draw(st.booleans())
    if draw(st.booleans()):
        request.tag_targets["easy"] = draw(st.floats(0, 1))
    return [request]


def asking(draw: st.DrawFn, world: World) -> dict[str, Any]:
    """Draws who asks, and under which id."""
    return {
        "job": draw(st.sampled_from(["", "one", "two"])),
        "incarnation": draw(st.sampled_from(["", "first", "second"])),
        "request_id": draw(st.just("") | st.sampled_from(REQUEST_IDS)),
    }


def report(draw: st.DrawFn, world: World) -> list[Message]:
    given = tasks(draw)
    rollouts = draw(st.lists(st.sampled_from([1, 8, 1_000_000]), min_size=len(given), max_size=len(given)))
    share = draw(st.sampled_from([0.0, 0.5, 1.0]))
    return [
        pb.ReportOutcomesRequest(
            run=ref(draw),
            tasks=given,
            rollouts=rollouts,
            successes=[share * count for count in rollouts],
            selection_id=draw(st.just("") | world.word("selection_id")),
            request_id=draw(st.just("") | st.sampled_from(REQUEST_IDS)),
        )
    ]


def restore(draw: st.DrawFn, world: World) -> list[Message]:
    names = {name: value for name, value in asking(draw, world).items() if name != "incarnation"}
    request = pb.RestoreRunRequest(run=ref(draw), **names)
    if draw(st.booleans()):
        request.checkpoint = draw(st.sampled_from(["new", "kept"]))
    else:
        request.version = draw(st.integers(0, 6))
    return [request]


def of_run(method: str, /, **fields: Callable[[st.DrawFn], Any]) -> Callable[[st.DrawFn, World], list[Message]]:
    """Returns what draws a request that names a run and has these fields."""
    kind: type[Any] = getattr(pb, f"{method}Request")
    return lambda draw, world: [kind(run=ref(draw), **{key: make(draw) for key, make in fields.items()})]


def named(method: str, /, **fields: str) -> Callable[[st.DrawFn, World], list[Message]]:
    """Returns what draws a request with the words of these fields."""
    kind: type[Any] = getattr(pb, f"{method}Request")
    return lambda draw, world: [kind(**{key: draw(world.word(of)) for key, of in fields.items()})]


# A request that the rules allow, by method; CreateDataset's are several.
VALID: dict[str, Callable[[st.DrawFn, World], list[Message]]] = {
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
    "ReleaseSelection": lambda draw, world: [
        pb.ReleaseSelectionRequest(run=ref(draw), selection_id=draw(world.word("selection_id")))
    ],
    "RetireTasks": of_run("RetireTasks", tasks=tasks, undo=lambda draw: draw(st.booleans())),
    "GetPosteriors": of_run("GetPosteriors", tasks=tasks),
    "GetRunSummary": of_run("GetRunSummary"),
    "WatchRun": of_run("WatchRun"),
    "CreateCheckpoint": of_run("CreateCheckpoint", name=lambda draw: draw(st.sampled_from(["new", "kept"]))),
    "ListCheckpoints": of_run("ListCheckpoints"),
    "DeleteCheckpoint": of_run("DeleteCheckpoint", name=lambda draw: draw(st.sampled_from(["new", "kept"]))),
    "RestoreRun": restore,
    "UndoReport": of_run("UndoReport", version=lambda draw: draw(st.integers(1, 12))),
    "ListLeases": of_run("ListLeases"),
    "EndLeases": of_run("EndLeases", job=lambda draw: draw(st.sampled_from(["", "one", "two"]))),
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
