"""CreateDataset, GetDataset, ListDatasets, DeleteDataset."""

from collections.abc import Iterator

from bots.v1 import task_selection_pb2 as pb
from bots_server.api import checks, messages
from bots_server.api.difference import content_difference, header_difference
from bots_server.api.upload import DatasetBuilder, check_header
from bots_server.errors import DatasetExists, DatasetNotFound, Described, InvalidField
from bots_server.store import Store


class DatasetHandlers:
    """Datasets: created, listed and deleted."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def create_dataset(self, requests: Iterator[pb.CreateDatasetRequest]) -> pb.CreateDatasetResponse:
        first = next(requests, None)
        if first is None or first.WhichOneof("part") != "header":
            raise InvalidField("part", Described("no header"), "must be the header in the first message")
        header = check_header(first.header)
        if header.fingerprint and (known := self._known(header)) is not None:
            return known
        builder = DatasetBuilder(header)
        with self._store.datasets.upload(header.name) as upload:
            chunks = 0
            for request in requests:
                if request.WhichOneof("part") != "chunk":
                    raise InvalidField("part", Described("header"), "must be a chunk in each message after the first")
                upload.put(builder.add(request.chunk))
                chunks += 1
            record = builder.record()
            there, created = upload.commit(record, builder.strata())
            if there.fingerprint != record.fingerprint:
                record.uid, record.chunks = upload.uid, chunks
                different = header_difference(there, header) or content_difference(self._store, there, record)
                raise DatasetExists(header.name, different)
            if not created and self._store.datasets.is_damaged(there):
                upload.repair(there)
        return pb.CreateDatasetResponse(dataset=messages.dataset(there), created=created)

    def get_dataset(self, request: pb.GetDatasetRequest) -> pb.GetDatasetResponse:
        record = self._store.datasets.get(checks.name("name", request.name))
        return pb.GetDatasetResponse(dataset=messages.dataset(record), runs=self._store.datasets.run_count(record))

    def list_datasets(self, request: pb.ListDatasetsRequest) -> pb.ListDatasetsResponse:
        size, after = checks.page(request.page_size, request.page_token)
        found = self._store.datasets.list(after, size)
        return pb.ListDatasetsResponse(
            datasets=map(messages.dataset, found), next_page_token=found[-1].name if len(found) == size else ""
        )

    def delete_dataset(self, request: pb.DeleteDatasetRequest) -> pb.DeleteDatasetResponse:
        self._store.datasets.delete(checks.name("name", request.name), delete_runs=request.delete_runs)
        return pb.DeleteDatasetResponse()

    def _known(self, header: pb.DatasetHeader) -> pb.CreateDatasetResponse | None:
        """Returns the answer if the name has a dataset that is equal to this one by its header, and not damaged.

        Raises DatasetExists.
        """
        try:
            there = self._store.datasets.get(header.name)
        except DatasetNotFound:
            return None
        if there.fingerprint == header.fingerprint:
            if self._store.datasets.is_damaged(there):
                return None
            return pb.CreateDatasetResponse(dataset=messages.dataset(there), created=False)
        if different := header_difference(there, header):
            raise DatasetExists(header.name, different)
        return None
