"""Retrain a collection's encoder, from generated training data to a published generation.

Each stage writes files that the next one reads. If a worker dies, the next one skips finished stages and resumes the
training at its last checkpoint. The candidate is evaluated with the real search on its own indexes.
"""

from __future__ import annotations

import copy
import datetime as dt
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hyblink.app.application import App
from hyblink.app.core.errors import ConflictError, InvalidInputError, NotFoundError
from hyblink.app.core.manifest import read_json, write_json
from hyblink.app.core.sections import sections_of
from hyblink.app.core.settings import Settings
from hyblink.app.core.types.documents import heading_of
from hyblink.app.core.types.ranking import DEFAULT_SIGNALS
from hyblink.app.engines.catalog import Catalog
from hyblink.app.jobs.job import Job
from hyblink.app.jobs.running import RunningJob
from hyblink.app.jobs.schedules import Schedule
from hyblink.app.jobs.single_flight import UnderWayError
from hyblink.app.operations.generations import build_candidate, publish
from hyblink.training.data.rows import Text, read_rows, write_jsonl
from hyblink.training.negatives.mining import Mining, mine
from hyblink.training.negatives.sources import CollectionSource
from hyblink.training.registry import ModelRegistry
from hyblink.training.retraining.inverse_cloze import Source, generate
from hyblink.training.retraining.plan import Answers, Data, judge, plan_from, runs_of, split

log = logging.getLogger(__name__)
STAGES = ("data", "negatives", "train", "encode", "evaluate", "approve", "switch")
_MINING = Mining(last_rank=40, keep=12)
_REPORT_EVERY = 10
_PATIENCE_S = 3600.0
_PAUSE_S = 15.0


class Retraining:
    """One retraining job, with its own work folder."""

    def __init__(self, app: App, running: RunningJob) -> None:
        self._app = app
        self._running = running
        job = running.job
        self._collection = job.collection
        self._plan = plan_from(job.params)
        self._folder = folder_of(app.settings, job)
        self._name = model_name(job)
        self._models = ModelRegistry(app.settings.models_dir)
        self._told: dict[str, Any] = dict(job.progress)

    def run(self) -> None:
        """Run the remaining stages; stop where a person has to approve the candidate.

        If a resource is in use by another process, the job is queued again.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            self._run()
        except UnderWayError as error:
            self._running.again(f"waits: {error}", _PAUSE_S)

    def _run(self) -> None:
        if self._running.job.stage == "switch":
            self._switch()
            return
        source = self._source()
        data = self._data(source)
        self._tell("data", data=data.counts())
        self._negatives(source, data)
        self._train(source)
        if self._overtaken(source):
            return
        candidate = self._encode(source)
        verdict = self._evaluate(source, candidate, data)
        self._decide(verdict)

    def _tell(self, stage: str, **progress: Any) -> None:
        """Report a stage and its progress. A resumed run keeps reporting the furthest stage reached before.

        Only reaching a further stage resets the job's count of failed attempts.
        """
        self._told.update(progress)
        reached = max(STAGES.index(stage), STAGES.index(self._told.get("reached", STAGES[0])))
        further = STAGES[reached] != self._told.get("reached")
        self._told["reached"] = STAGES[reached]
        self._running.report(stage=STAGES[reached], progress=copy.deepcopy(self._told), forget=further)

    def _source(self) -> str:
        """The generation that was current when the retraining started. All data and comparisons use it."""
        name = str(self._told.get("source") or self._app.catalog.current(self._collection))
        self._app.catalog.record(self._collection, name)
        self._tell("data", source=name)
        return name

    def _overtaken(self, source: str) -> bool:
        """Whether another generation has been published meanwhile. If so, the job is ended as refused."""
        current = self._app.catalog.current(self._collection)
        if current == source or current == candidate_of(self._app.catalog, self._running.job):
            return False
        self._discard()
        self._running.refused(
            f"{current} answers now, and not {source}, which this was made from: train again",
            {"published": False, "model": self._name},
        )
        return True

    def _discard(self) -> None:
        discard_candidate(self._app.catalog, self._running.job)
        self._path("report.json").unlink(missing_ok=True)
        self._forget_work()

    def _path(self, name: str) -> Path:
        return self._folder / name

    def _texts(self, source: str) -> list[str]:
        """The title and text of every passage, as the encoders read them."""
        texts = []
        for item in self._app.catalog.engine(self._collection, source).store.reader().export():
            document = item.document
            for (start, end), section in zip(item.windows, sections_of(document, item.windows), strict=True):
                texts.append(Text(document.text[start:end], heading_of(document.title, section.path)).joined)
        return texts

    def _data(self, source: str) -> Data:
        path = self._path("data.json")
        if path.exists():
            return _data_from(self._folder, read_json(path))
        if self._models.path(self._name).exists():
            raise InvalidInputError(
                "the files of this retraining are gone", received=str(self._folder), expected="a new retraining"
            )
        self._tell("data")
        reader = self._app.catalog.engine(self._collection, source).store.reader()

        def text_of(document_id: str) -> Text | None:
            found = reader.passages(reader.document_rows(document_id)[:1])
            return next((Text(result.text, result.heading, document_id) for result in found.values()), None)

        since = ""
        if self._plan.days:
            since = (dt.datetime.now(dt.UTC) - dt.timedelta(days=self._plan.days)).isoformat(timespec="seconds")
        documents = (Source(item.document.id, item.document.title, item.document.text) for item in reader.export())
        judgements = self._app.feedback.judgements(self._collection)
        data = split(generate(documents), judgements, text_of, self._plan, since=since)
        write_jsonl(self._path("rows.jsonl"), data.rows)
        write_jsonl(self._path("dev.jsonl"), data.dev)
        names = ("held_out", "held_out_qrels", "judged", "judged_qrels", "left_out")
        write_json(path, {name: getattr(data, name) for name in names})
        return data

    def _negatives(self, source: str, data: Data) -> None:
        for name, rows in (("mined.jsonl", data.rows), ("mined-dev.jsonl", data.dev)):
            path = self._path(name)
            if path.exists() or not rows:
                continue
            proposals = CollectionSource(
                self._app.search, self._collection, DEFAULT_SIGNALS, "hybrid", candidates=100, generation=source
            )
            counter = self._counter("negatives", name, len(rows))
            mined = [row for row in mine(rows, proposals, _MINING, scores=True, progress=counter) if row.negatives]
            beside = path.with_suffix(".tmp")
            write_jsonl(beside, mined)
            beside.rename(path)

    def _counter(self, stage: str, name: str, total: int) -> Callable[[int], None]:
        """A callback that counts steps and reports every `_REPORT_EVERY` of them."""
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            if done % _REPORT_EVERY == 0 or done == total:
                self._tell(stage, **{stage: {"of": name, "done": done, "total": total}})

        return advance

    def _train(self, source: str) -> None:
        if self._models.path(self._name).exists():
            return
        from hyblink.training.run import train_model

        self._tell("train")
        serving = self._app.catalog.record(self._collection, source)
        head = self._app.encoders.vdr_adapter(serving)
        if head is None:
            raise InvalidInputError(
                "there is no head to go on from", received=serving.vdr_model, expected="a VDR adapter"
            )
        config = replace(self._plan.config(), base=head.base)
        dev = self._path("mined-dev.jsonl")

        def progress(step: int, loss: float) -> None:
            if step % _REPORT_EVERY == 0 or step == config.steps:
                self._tell("train", train={"step": step, "of": config.steps, "loss": round(loss, 4)})

        train_model(
            config,
            [self._path("mined.jsonl")],
            self._models.path(self._name),
            dev=dev if dev.exists() else None,
            work=self._path("run"),
            cache=self._app.settings.data_dir / "states",
            parent=serving.vdr_model,
            init_from=head.folder,
            statistics={"mined.jsonl": self._texts(source)},
            progress=progress,
            say=lambda line: log.info("retraining %s: %s", self._name, line),
        )

    def _encode(self, source: str) -> str:
        """The id of the complete, verified candidate generation; it is built unless an earlier attempt did so."""
        known = candidate_of(self._app.catalog, self._running.job)
        if known:
            return known
        self._path("report.json").unlink(missing_ok=True)
        serving = self._app.catalog.record(self._collection, source)
        encoder = self._app.encoders.trained_vdr(self._name, serving.dense_encoder)
        counts: dict[str, int] = {}

        def progress(stage: str, count: int) -> None:
            counts[stage] = counts.get(stage, 0) + count
            self._tell("encode", encode=counts)

        built = build_candidate(self._app, self._collection, source, encoder, f"retrained: {self._name}", progress)
        self._tell("encode", candidate=built.id)
        return built.id

    def _evaluate(self, source: str, candidate: str, data: Data) -> dict[str, Any]:
        path = self._path("report.json")
        if path.exists():
            return read_json(path)
        for generation in (source, candidate):
            record = self._app.catalog.record(self._collection, generation)
            self._app.encoders.hybrid_encoder(record).encode_query("loaded before anything is compared")
        queries = {**data.judged, **data.held_out}
        counter = self._counter("evaluate", "queries", 2 * (len(queries) + len(data.held_out)))

        def answers(generation: str) -> Answers:
            whole = runs_of(self._app.search, self._collection, generation, queries, counter)
            only = (self._plan.signal,)
            alone = runs_of(self._app.search, self._collection, generation, data.held_out, counter, only)
            return Answers(whole, alone)

        verdict = judge(self._plan.gate, data, answers(source), answers(candidate))
        report = {**verdict.plain(), "reasons": verdict.reasons, "serving": source, "candidate": candidate}
        write_json(path, report)
        return report

    def _decide(self, verdict: Mapping[str, Any]) -> None:
        self._tell("evaluate", verdict=dict(verdict), model=self._name)
        if not verdict["passed"]:
            self._discard()
            self._running.refused(f"the gate says no: {verdict['reasons']}", self._result(published=False))
        elif self._plan.publish == "auto" and verdict["certain"]:
            self._switch()
        else:
            why = "" if verdict["certain"] else "; too few judged queries to do without a person"
            self._running.waits("approve", f"passed the gate, waits for approval{why}")

    def _switch(self) -> None:
        """Publish the candidate generation, with the writes made since it was built."""
        candidate = candidate_of(self._app.catalog, self._running.job)
        if not candidate:
            raise InvalidInputError("the candidate is not there any more", expected="train again")
        if self._overtaken(str(self._told["source"])):
            return
        self._tell("switch")
        publish(self._app, self._collection, candidate, patience_s=_PATIENCE_S)
        self._models.promote(self._name)
        self._forget_work()
        self._running.done(self._result(published=True))

    def _forget_work(self) -> None:
        shutil.rmtree(self._path("run"), ignore_errors=True)

    def _result(self, *, published: bool) -> dict[str, Any]:
        told = self._told
        return {
            "published": published,
            "model": self._name,
            "generation": told["candidate"] if published else "",
            "replaced": told["source"],
            "figures": told["verdict"]["figures"],
        }


def start_retraining(app: App, collection: str, params: Mapping[str, Any], by: str = "") -> Job:
    """Create and queue a job that retrains a collection's VDR encoder.

    Raises NotFoundError, InvalidInputError for bad parameters, and ConflictError if the collection has no VDR adapter
    or has an open retraining job.
    """
    plan_from(params)
    record = app.catalog.engine(collection).record
    if not record.dense_dimension or app.encoders.vdr_adapter(record) is None:
        raise ConflictError(
            "the collection has no VDR encoder to train anew", received=record.vdr_model or collection,
            expected="one with vectors and a VDR adapter (encode.vdr_model)",
        )  # fmt: skip
    return app.job_records.create("retrain", collection, params, by)


def schedule_retraining(
    app: App, collection: str, every_hours: float, params: Mapping[str, Any], by: str = ""
) -> Schedule:
    """Schedule a retraining of a collection every `every_hours` hours. Raises NotFoundError, InvalidInputError."""
    app.catalog.spec(collection)
    plan_from(params)
    return app.schedules.set(collection, every_hours, params, by)


def folder_of(settings: Settings, job: Job) -> Path:
    """Return the work folder of a retraining job."""
    return settings.work_dir / job.id


def model_name(job: Job) -> str:
    """Return the name of the model that a retraining job trains, made from the collection's name and the job's id."""
    return f"{job.collection[:40]}-{job.id[1:16].lower()}-{job.id[-6:]}"


def candidate_of(catalog: Catalog, job: Job) -> str:
    """Return the id of the candidate generation that a retraining job built, "" if it no longer exists."""
    # Generation ids are reused, so the generation is recognised by the name of its model.
    candidate = str(job.progress.get("candidate", ""))
    try:
        made = candidate and catalog.record(job.collection, candidate).vdr_model
    except NotFoundError:
        return ""
    return candidate if made and made.startswith(f"vdr:{model_name(job)}:") else ""


def discard_candidate(catalog: Catalog, job: Job) -> None:
    """Delete the candidate generation of a retraining job, unless it was ever published."""
    candidate = candidate_of(catalog, job)
    if candidate and candidate not in catalog.history(job.collection):
        catalog.discard(job.collection, candidate)


def _data_from(folder: Path, found: Mapping[str, Any]) -> Data:
    dev = folder / "dev.jsonl"
    rows = tuple(read_rows(dev)) if dev.stat().st_size else ()
    return Data(tuple(read_rows(folder / "rows.jsonl")), rows, **found)
