"""Documents from files, folders and installed Python packages. Readers stream; a bad row never stops the rest."""

from indexer.readers.files import FileSource, detect_format
from indexer.readers.item import SourceItem
from indexer.readers.python_package import PythonSource

__all__ = ["FileSource", "PythonSource", "SourceItem", "detect_format"]
