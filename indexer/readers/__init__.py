"""Documents from files, folders and installed Python packages. Readers stream; a bad row never stops the rest."""

from hyblink.indexer.readers.files import FileSource, detect_format
from hyblink.indexer.readers.item import SourceItem
from hyblink.indexer.readers.python_package import PythonSource

__all__ = ["FileSource", "PythonSource", "SourceItem", "detect_format"]
