"""Records → a pool, one stage for each data set that the run names."""

from dataclasses import dataclass
from typing import Any

from ...pool.ingest import MANIFEST, IngestConfig, IngestReport, ingest, pictures_back, source_since, told_of, usage_of
from ...pool.reader import Pool
from ...store.errors import InputError
from ...store.files import exists, folder_bytes, join, list_files, reading_parquet
from ...store.manifest import Manifest, StageRecord
from ..progress import bar
from .identity import POOL_FREE, kept, without
from .longer_test import end_longer, take_longer
from .stage import Planned, Planning, Run, Stage, StageStatus, tell

ANEW = "Picks and trainings were made without them: begin again in another `out` to use them."


@dataclass(frozen=True)
class Ingest(Stage):
    """`pool`: which data set, and the folder that it goes to."""

    pool: str

    @property
    def config(self) -> IngestConfig:
        """Where records and pictures lie."""
        return getattr(self.run_config, self.pool)

    @property
    def name(self) -> str:
        """`ingest-POOL`."""
        return f"ingest-{self.pool}"

    @property
    def needs(self) -> tuple[str, ...]:
        """Nothing that a run makes."""
        return ()

    def settings(self) -> dict[str, Any]:
        """What its content depends on."""
        return {self.pool: without(self.config, *POOL_FREE)}

    def estimate(self, planning: Planning) -> list[Planned]:
        """Tell of its rows, and of those that a sample shows to be unusable."""
        line = self.line(self.name, self.config.source, planning.rows(self.pool), self.config)
        line.note = self._told(planning)
        return [line]

    def _told(self, planning: Planning) -> str:
        """Say what ingest refused, or would; a sample's share is only an estimate, so it ends nothing here."""
        sample, limit = planning.samples[self.pool], self.config.max_refused
        usage = sample.usage
        if not usage.refused:
            return ""
        if sample.origin == "the pool":
            return usage.line()
        over = f"; over max_refused ({limit:.1%}), so ingest would stop" if usage.lost > limit else ""
        return f"of a sample, {usage.line()}{over}"

    def stand(self, lines: list[Planned], planning: Planning) -> None:
        """A longer test set has the questions of the one that is there."""
        super().stand(lines, planning)
        if self.pool == "test" and planning.longer:
            before = Pool(join(self.run_config.out, self.pool)).rows
            for line in lines:
                line.stands(min(before, line.rows - 1), line.rows, "questions")

    def inputs(self, before: StageRecord | None) -> dict[str, Any]:
        """Return what its manifest says it was made of; `before`: the manifest that is there."""
        free = ("max_refused",) if self.config.share else ("max_refused", "share")  # there were none once
        return {"config": kept(without(self.config, *free), before, POOL_FREE)}

    def differs(self) -> bool:
        """Say whether the pool that is there was made of something else."""
        before = Manifest(self.run_config.out, "").read(self.name)
        return before is not None and before.inputs != self.inputs(before)

    def raise_edited(self) -> None:
        """See that the source of the pool that is there was not edited in its place.

        Raises:
            InputError: it is longer or shorter, or of more or fewer files.
        """
        out = join(self.run_config.out, self.pool)
        if exists(join(out, MANIFEST)) and {"files", "size"} & set(source_since(self.config, out)):
            grow = (
                "; or, if it only has more questions, give the longer one another name" if self.pool == "test" else ""
            )
            raise InputError(
                f"{self.config.source} was changed since {out} was made of it, and what follows was made of that pool. Put "
                f"it back as it was, or begin again in another `out`{grow}."
            )

    def run(self, run: Run) -> None:
        """Ingest into `RUN/POOL`. Raises: as `ingest`."""
        config, out = self.config, run.folder(self.pool)

        def work(record: StageRecord) -> None:
            with bar(f"ingest {self.pool}", "rows") as tell_rows:
                report = ingest(config, out, progress=lambda rows: tell_rows(rows, 0))
            self._note(record, report, out)

        inputs = self.inputs(run.manifest.read(self.name))
        if self.pool == "test" and run.manifest.changed(self.name, inputs) == []:
            end_longer(run.out)
        if run.manifest.changed(self.name, inputs) == []:
            self.raise_edited()
            # what follows was made of the pool as it is
            if back := pictures_back(config, out):
                tell(f"{self.name}: {len(back)} pictures that could not be read can be by now. {ANEW}")
            if source_since(config, out):
                tell(
                    f"{self.name}: {config.source} is as long as it was, but newer than the pool, which is not made anew."
                )
        if self.pool == "test" and run.manifest.changed(self.name, inputs):
            self._lengthen(run, inputs)
        run.stage(self.name, inputs, work)

    def _lengthen(self, run: Run, inputs: dict[str, Any]) -> None:
        """Put a longer test set into the place of the one that trials were asked."""
        report = take_longer(run.out, self.config)
        with run.manifest.stage(self.name, inputs) as record:
            self._note(record, report, run.folder(self.pool))
        end_longer(run.out)

    @staticmethod
    def _note(record: StageRecord, report: IngestReport, out: str) -> None:
        record.facts["rows"] = report.rows
        if report.elsewhere:
            record.facts["elsewhere"] = report.elsewhere
            tell(f"{report.elsewhere:,} rows of the source lie in other shares.")
        if report.odd:
            record.facts["odd"] = report.odd
            for line in told_of(report):
                tell(line)
        record.account(usage_of(report, out))
        record.facts["bytes"] = folder_bytes(out)

    def progress(self, run_dir: str) -> StageStatus:
        """Count the rows written so far."""
        parts = [f for f in list_files(join(run_dir, self.pool), ".parquet") if "/part-" in f]
        rows = 0
        for part in parts:
            with reading_parquet(part, "Run again: ingest begins anew when it is interrupted.") as file:
                rows += file.metadata.num_rows
        lists = join(run_dir, self.pool, "refused.parquet")
        if not parts and exists(lists):
            return self.begun(True, f"refused too many rows; {lists} says which and why")
        # a killed ingest begins again: these rows are not a part of any pool yet
        return self.begun(bool(parts), f"{rows:,} rows so far; ingest begins again when it is interrupted")
