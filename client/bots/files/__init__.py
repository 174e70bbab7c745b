"""Datasets in files: reads the columns that a dataset needs, and tells what a file holds.

    columns = read(["train/"], id="extra_info.index", tag="data_source", references={"strong": "pass_rate"})
    inspection = inspect(["train/"])

Reads Parquet, Arrow files and streams (Feather), CSV, TSV, JSON lines and JSON arrays, each also compressed with gzip,
zstd, bzip2 or xz. Depends on numpy and pyarrow; knows nothing of the service.
"""

from bots.files.errors import DataError
from bots.files.inspection import Column, Inspection, inspect
from bots.files.reading import read
from bots.files.tasks import Columns

__all__ = ["Column", "Columns", "DataError", "Inspection", "inspect", "read"]
