"""What is to be run, and whether it has been."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.finetune.setting import Arm, Setting
from tests.finetune.trace import load


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training, or two on the same problem.

    weights  folder with the policies of `tests.finetune.start`.
    file     of the trace; of two trainings, that of the second has `-other` before the suffix.
    pair     "": one training. "apart": the second of two trainings, which has a run of its own. "shared": both
             trainings, which take turns on one run.
    """

    arm: Arm
    seed: int
    setting: Setting
    weights: Path
    file: Path
    pair: str = ""

    @property
    def about(self) -> dict[str, Any]:
        """What decides the outcome, to compare with a file."""
        return {"arm": asdict(self.arm), "seed": self.seed, "setting": asdict(self.setting), "pair": self.pair}

    @property
    def done(self) -> bool:
        """Whether the trace is there. ValueError: the file has the trace of another job."""
        if not self.file.exists():
            return False
        _, about = load(self.file)
        if about != self.about:
            raise ValueError(f"{self.file}: got the trace of another setting, must be of this one; move it away")
        return True

    @property
    def other_file(self) -> Path:
        """The file of the second trace of a shared pair."""
        return self.file.with_name(f"{self.file.stem}-other{self.file.suffix}")
