"""CreateDataset, GetDataset, ListDatasets, DeleteDataset."""

from collections.abc import Iterator

from bots.v1 import task_selection_pb2 as pb
from bots_server.api import checks, messages
from bots_server.api.callers import caller
from bots_server.api.difference import content_difference, header_difference
from bots_server.api.upload import DatasetBuilder, check_header
from bots_server.errors import DatasetExists, DatasetNotFound, Described, InvalidField, NameNotAllowed
from bots_server.runs.memory import UPLOADED_TASK_BYTES, Memory
from bots_server.store import Store
from bots_server.store.usage import require


class DatasetHandlers:
    def __init__(self, store: Store, memory: Memory) -> None:
        self._store, self._memory = store, memory

    def create_dataset(self, requests: Iterator[pb.CreateDatasetRequest]) -> pb.CreateDatasetResponse:
        first = next(requests, None)
        if first is None or first.WhichOneof("part") != "header":
            raise InvalidField("part", Described("no header"), "must be the header in the first message")
        header = check_header(first.header)
        if not (one := caller()).may_see(header.name):
            raise NameNotAllowed("header.name", header.name, one.identity, one.datasets)
        try:
            there = self._store.datasets.get(header.name)
        except DatasetNotFound:
            there = None
        if there is not None and header.fingerprint:  # it tells before the upload whether the content is equal
            if there.fingerprint != header.fingerprint:
                if different := header_difference(there, header):
                    raise DatasetExists(header.name, different)
            elif not self._store.datasets.is_damaged(there):
                return pb.CreateDatasetResponse(dataset=messages.dataset(there), created=False)
        owner, quotas = one.identity, self._store.quotas
        # If the name is taken, nothing will be stored: the upload is compared with what has it.
        used = 0 if there is not None else quotas.require(owner, datasets=1, tasks=header.size).bytes
        builder = DatasetBuilder(header)
        with self._store.datasets.upload(header.name) as upload, self._memory.for_upload() as grow:
            chunks = 0
            for request in requests:
                if request.WhichOneof("part") != "chunk":
                    raise InvalidField("part", Described("header"), "must be a chunk in each message after the first")
                stored = builder.add(request.chunk)
                grow(len(stored.ids) + UPLOADED_TASK_BYTES * len(stored.id_lengths) // 4)
                upload.put(stored)
                require("bytes", quotas.limits.bytes, used, upload.bytes)
                chunks += 1
            record = builder.record()
            record.owner = owner
            there, created = upload.commit(record, builder.strata())
            if there.fingerprint != record.fingerprint:
                record.uid, record.chunks = upload.uid, chunks
                different = header_difference(there, header) or content_difference(self._store, there, record)
                raise DatasetExists(header.name, different)
            if not created and self._store.datasets.is_damaged(there):
                upload.repair(there)
        return pb.CreateDatasetResponse(dataset=messages.dataset(there), created=created)

    def get_dataset(self, request: pb.GetDatasetRequest) -> pb.GetDatasetResponse:
        record = self._store.datasets.get(checks.dataset("name", request.name))
        return pb.GetDatasetResponse(dataset=messages.dataset(record), runs=self._store.runs.count(record))

    def list_datasets(self, request: pb.ListDatasetsRequest) -> pb.ListDatasetsResponse:
        page = checks.page(request.page_size, request.page_token, "datasets")
        found = self._store.datasets.list(page.after, page.size, caller().may_see)
        token = page.next_token([one.name for one in found])
        return pb.ListDatasetsResponse(datasets=map(messages.dataset, found), next_page_token=token)

    def delete_dataset(self, request: pb.DeleteDatasetRequest) -> pb.DeleteDatasetResponse:
        self._store.datasets.delete(checks.dataset("name", request.name), delete_runs=request.delete_runs)
        return pb.DeleteDatasetResponse()
