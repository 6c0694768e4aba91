"""`hyblink generations` and `hyblink profiles`."""

from __future__ import annotations

import typer

from hyblink.app.cli.console import answer, audited, opened, parse_weights, progress, reported, say
from hyblink.app.cli.local_service import reads
from hyblink.app.cli.options import (
    CollectionOption,
    FusionOption,
    JsonOption,
    NormalizationOption,
    NoteOption,
    VdrOption,
    WeightsOption,
)

generations_cli = typer.Typer(
    help="Generations of a collection: list, rebuild, publish, roll back.", no_args_is_help=True
)
profiles_cli = typer.Typer(help="Ranking profiles: list, save, use.", no_args_is_help=True)


@generations_cli.command("list")
@reads
def generations_list(collection: CollectionOption = "default", as_json: JsonOption = False) -> None:
    """List generations; the current one is marked."""
    with reported(as_json), opened() as app:
        current = app.catalog.current(collection)
        records = app.catalog.generations(collection)
        lines = (
            f"{'*' if record.id == current else ' '} {record.id}  {record.created}  "
            f"{record.dense_encoder or 'no vectors'}  {record.note}"
            for record in records
        )
        answer({"current": current, "generations": records}, as_json, lines)


@generations_cli.command("rebuild")
def generations_rebuild(collection: CollectionOption = "default", note_text: NoteOption = "") -> None:
    """Build the next generation with the encoders of the settings, verify and publish it."""
    with reported(), opened() as app, audited(app, f"generations rebuild {collection}"):
        from hyblink.app.operations.generations import rebuild

        with progress() as bars:
            stages = {}

            def advance(stage: str, count: int) -> None:
                if stage not in stages:
                    stages[stage] = bars(stage)
                stages[stage](count)

            built = rebuild(app, collection, note_text, advance)
        say(f"{built.id} answers now")


@generations_cli.command("publish")
def generations_publish(generation: str, collection: CollectionOption = "default") -> None:
    """Make a generation the current one, which answers searches."""
    with reported(), opened() as app, audited(app, f"generations publish {collection} {generation}"):
        from hyblink.app.operations.generations import publish

        publish(app, collection, generation)
        say(f"{generation} answers now")


@generations_cli.command("rollback")
def generations_rollback(collection: CollectionOption = "default") -> None:
    """Make the previous generation the current one again, with all writes made since."""
    with reported(), opened() as app, audited(app, f"generations rollback {collection}"):
        from hyblink.app.operations.generations import roll_back

        say(f"{roll_back(app, collection)} answers now")


@profiles_cli.command("list")
@reads
def profiles_list(collection: CollectionOption = "default", as_json: JsonOption = False) -> None:
    """List saved ranking profiles; the current one is marked."""
    with reported(as_json), opened() as app:
        from hyblink.app.engines.profile_json import profile_to_json

        current = app.catalog.profile(collection, app.catalog.current(collection))
        saved = app.catalog.profiles(collection)

        def lines() -> list[str]:
            shown = []
            for profile in saved:
                weights = ", ".join(f"{s.value} {w:g}" for s, w in profile.weights.items())
                mark = "*" if profile.version == current.version else " "
                about = f"{profile.fusion} {profile.normalization}  {weights}  {profile.origin}"
                shown.append(f"{mark} {profile.version}  {about}")
            return shown

        value = {"current": profile_to_json(current), "profiles": [profile_to_json(p) for p in saved]}
        answer(value, as_json, lines)


@profiles_cli.command("save")
def profiles_save(
    collection: CollectionOption = "default",
    weights: WeightsOption = None,
    fusion: FusionOption = None,
    normalization: NormalizationOption = None,
    vdr: VdrOption = None,
    as_json: JsonOption = False,
) -> None:
    """Save the current ranking profile with these changes, and use it. Signals that --weights leaves out get 0."""
    with reported(as_json), opened() as app, audited(app, f"profiles save {collection}"):
        from hyblink.app.engines.profile_json import profile_to_json
        from hyblink.app.operations.profiles import save_profile

        saved = save_profile(
            app, collection, weights=parse_weights(weights), fusion=fusion, normalization=normalization, vdr=vdr
        )
        answer(profile_to_json(saved), as_json, [f"profile {saved.version} is used now"])


@profiles_cli.command("use")
def profiles_use(version: int, collection: CollectionOption = "default") -> None:
    """Use a saved ranking profile for the current generation."""
    with reported(), opened() as app, audited(app, f"profiles use {collection} {version}"):
        app.catalog.use_profile(collection, version)
        say(f"profile {version} is used now")
