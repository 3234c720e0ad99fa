"""TensorBoard's view of a sweep: each trial's curve in its own folder, and what it reached by selector, budget and seed."""

import tempfile
from typing import Any

from ray.tune.logger.tensorboardx import TBXLoggerCallback

from ....store.files import is_uri, join
from ....store.folders import put_folder, remove
from .curves import Curves, choice_of, numbers_of, values_of
from .told import told

FOLDER = "tensorboard"


class TensorBoard(TBXLoggerCallback):
    """Event files in `TRIAL/tensorboard`, in the place of those that Tune would write beside its own files.

    Tune's have a trial's arguments, which are one text here, as its hyperparameters, and no step of its training.
    """

    called = "TensorBoard"

    def __init__(self) -> None:
        super().__init__()
        self.curves = Curves()

    @told
    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Follow the trainings of the trials that run."""
        if self._trial_writer and self.curves.due():
            for trial in list(self._trial_writer):
                self._follow(trial)

    @told
    def log_trial_start(self, trial: Any) -> None:
        """Open a trial's file; what an earlier try of it wrote is dropped by readers."""
        if trial not in self._trial_writer:
            home = join(values_of(trial)["folder"], FOLDER)
            # files that grow are none of a bucket's: they go there when they are whole
            folder = tempfile.mkdtemp(prefix="vinnow-tensorboard-") if is_uri(home) else home
            self._trial_writer[trial] = self._summary_writer_cls(folder, purge_step=1, flush_secs=5)
            self._trial_result[trial] = {}

    @told
    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        """Take what a trial reached; one that failed reached nothing."""
        self.log_trial_start(trial)
        self._trial_result[trial] = numbers_of(result)

    @told
    def log_trial_end(self, trial: Any, failed: bool = False) -> None:
        """Write the rest of the curve, and the result with what the trial is one of."""
        if trial not in self._trial_writer:
            return
        from tensorboardX.summary import hparams

        self._follow(trial)
        values, numbers, writer = values_of(trial), self._trial_result.pop(trial), self._trial_writer.pop(trial)
        if "accuracy" in numbers and not failed:
            final = {f"trial/{name}": value for name, value in numbers.items()}
            for summary in hparams(choice_of(values), final):
                writer._get_file_writer().add_summary(summary)
            for name, value in final.items():
                writer.add_scalar(name, value, int(numbers.get("steps", 1)))
        writer.close()
        if writer.logdir != (home := join(values["folder"], FOLDER)):
            put_folder(writer.logdir, home)
            remove(writer.logdir)
        self.curves.forget(values["folder"])

    def _follow(self, trial: Any) -> None:
        writer = self._trial_writer[trial]
        for row in self.curves.new(values_of(trial)["folder"]):
            rates = {"tokens_per_second": row["tokens"] / max(row["seconds"], 1e-9)}
            for name, value in ({"loss": row["loss"], "lr": row["lr"]} | rates).items():
                writer.add_scalar(f"train/{name}", value, row["step"])
