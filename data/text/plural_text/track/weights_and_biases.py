"""A run of Weights & Biases, online or in log/wandb of the run's folder.

Owns: how the library is called, the id by which later starts go on with the same run. Does not own: the
account (`wandb login`, WANDB_API_KEY). Thread rule: one thread; the library sends in a process of its own.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from plural_text.common.errors import NotInstalled
from plural_text.track.tracker import not_installed


class WeightsAndBiases:
    """own: {"id": of the run there}. Errors: NotInstalled, also where the service does not let us in."""

    # The service keeps one row per step and refuses earlier ones, but files of mode offline keep all.
    counts_before_sending = True

    def __init__(self, logs: Path, settings: dict, config: dict, own: dict):
        """settings: project, mode, entity, name."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # of the library's own faults to its makers
        try:
            import wandb
        except ImportError as missing:
            raise not_installed("wandb", missing) from None
        self._wandb = wandb
        self._id = own.get("id") or uuid.uuid4().hex[:12]
        online = settings["mode"] == "online"
        try:
            self._run = wandb.init(
                project=settings["project"],
                entity=settings["entity"],
                name=settings["name"],
                id=self._id,
                resume="allow" if online else None,
                mode=settings["mode"],
                dir=str(logs),
                config=config,
                # Figures and the recipe alone: neither output, code nor measurements of this process.
                settings=wandb.Settings(
                    console="off",
                    disable_git=True,
                    disable_code=True,
                    save_code=False,
                    silent=True,
                    x_disable_stats=True,
                    x_disable_machine_info=True,
                ),
            )
        except wandb.errors.Error as error:
            advice = "run `wandb login` of .venv/bin, or set log.wandb.mode to offline and `wandb sync` later"
            raise NotInstalled(f"Weights & Biases: {str(error).rstrip('.')}; {advice}") from None

        self.where = self._run.url if online else f"for wandb sync {Path(self._run.dir).parent}"

    def send(self, step: int, figures: dict[str, float], _time_unix_seconds: float) -> None:
        self._run.log(figures, step=step)

    def commit(self) -> dict:
        return {"id": self._id}

    def close(self) -> None:
        self._run.finish()
