"""What the app loads, in a fresh process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HEAVY = ("torch", "torchvision", "timm", "open_clip", "sklearn", "scipy", "PIL")


def test_the_app_opens_a_study_without_torch_or_plotext(study: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from simtui.app import SimtuiApp

class Opens(SimtuiApp):
    def on_reader_news(self, message):
        super().on_reader_news(message)
        self.call_after_refresh(self.exit)

app = Opens([Path({str(study)!r})])
app.run(headless=True)
assert len(app.snapshot.records) == 12
print(sorted(set(sys.modules) & {{*{HEAVY!r}, "plotext"}}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "[]"
