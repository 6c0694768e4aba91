"""Bodies for uploads, jobs, queues and dead letters."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    BaseModel,
    Field,
    StrictBool,
    StrictStr,
)

from hyblink.app.api.schemas.common import COLLECTION, StrictBody
from hyblink.app.core.errors import InvalidInputError


class JobBody(StrictBody):
    """A job: one of `upload`, `folder`, `package` and `url` is read into a collection.

    With the kind `sync`, a collection is kept in step with a `folder` or a `source`: what is gone there is removed.
    """

    kind: Literal["ingest", "sync"] = "ingest"
    collection: StrictStr = COLLECTION
    upload: StrictStr = Field("", max_length=100, description="The id of an upload.")
    folder: StrictStr = Field("", max_length=4096, description="A file or folder on the server, below `jobs.roots`.")
    package: StrictStr = Field("", max_length=200, description="An installed Python package; `python` for its library.")
    url: StrictStr = Field(
        "", max_length=2000, description="A file on another server, one of `jobs.url_hosts`; http or https."
    )
    source: StrictStr = Field(
        "", max_length=200, description="A source in the settings that belongs to the collection; for sync only."
    )
    force: StrictBool = Field(False, description="Remove documents even if most of them are gone; for sync only.")
    format: StrictStr | None = Field(
        None, max_length=20, description="A format of `GET /v1/formats`; by default that of each file."
    )
    columns: dict[Literal["id", "title", "text"], StrictStr] | None = Field(
        None, description="Which fields hold the id, the title and the text; several texts separated by commas."
    )
    encoding: StrictStr | None = Field(None, max_length=40, description="Encoding of text files; else it is found out.")
    header: StrictBool = Field(True, description="Whether the first row of a table names its columns.")
    keep_boilerplate: StrictBool = Field(False, description="Read HTML with its navigation, banners and footers.")
    ocr: StrictBool = Field(False, description="Read pages and pictures without text by Tesseract, if it is installed.")
    rows: StrictBool = Field(False, description="Each row of a workbook is a document.")
    prefix_ids: StrictBool = Field(False, description="Put the source's name before the ids of rows too.")
    whole: StrictBool = Field(False, description="Do not cut documents (a new collection only).")
    analyzer: StrictStr = Field("english", max_length=20, description="english or standard (a new collection only).")
    dense_index: StrictStr = Field("auto", max_length=20, description="The dense index (a new collection only).")
    no_dense: StrictBool = Field(False, description="No vectors (a new collection only).")

    def params(self) -> dict[str, Any]:
        """Return the parameters to store in the job."""
        if self.kind == "sync":
            return self.model_dump(include={"source", "folder", "force"})
        if self.source or self.force:
            raise InvalidInputError(
                "source and force are for jobs of the kind sync", received=self.kind, expected="sync"
            )
        return self.model_dump(exclude={"kind", "collection", "source", "force"})


class UploadAnswer(BaseModel):
    """A stored file."""

    id: str
    name: str
    bytes: int
    sha256: str


class JobAnswer(BaseModel):
    """A job: its parameters, its progress and its outcome."""

    id: str
    kind: str
    collection: str
    params: dict[str, Any]
    by: str
    created: str
    state: Literal["queued", "running", "waiting", "cancelling", "cancelled", "done", "refused", "failed"]
    stage: str
    message: str
    progress: dict[str, Any]
    result: dict[str, Any]
    error: str
    attempts: int
    started: str
    ended: str


class JobsAnswer(BaseModel):
    """Jobs, the newest first."""

    jobs: list[JobAnswer]


class RejectAnswer(BaseModel):
    """A rejected row of an ingestion job."""

    file: str
    line: int
    code: str
    message: str
    raw: str


class RejectsAnswer(BaseModel):
    """The rejected rows of an ingestion job."""

    rejects: list[RejectAnswer]


class WorkerAnswer(BaseModel):
    """A live worker."""

    queues: list[str]
    device: str
    pid: int
    silent_s: float


class StageAnswer(BaseModel):
    """The number of open jobs of a kind in a stage."""

    kind: str
    stage: str
    jobs: int


class QueuesAnswer(BaseModel):
    """The state of background work: workers, queue lengths, jobs by state, unencoded passages by collection."""

    queues: dict[str, int]
    stages: list[StageAnswer]
    workers: list[WorkerAnswer]
    jobs: dict[str, int]
    waiting: dict[str, int]
    dead_letters: int


class DeadLetterAnswer(BaseModel):
    """A task that failed for good."""

    id: str
    task: str
    args: list[str]
    error: str
    detail: str
    at: str


class DeadLettersAnswer(BaseModel):
    """Tasks that failed for good, the newest first."""

    dead_letters: list[DeadLetterAnswer]
