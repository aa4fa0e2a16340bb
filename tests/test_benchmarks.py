"""The benchmarks still run. How fast anything is, no test says."""

import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parents[1] / "benchmarks" / "run.py"


@pytest.mark.timeout(45)
def test_a_part_is_measured_and_written_down(tmp_path: Path) -> None:
    results = tmp_path / "RESULTS.md"
    results.write_text("<!-- part io -->\n## measured before\n")
    command = [sys.executable, str(RUN), "--no-setup", "--quick", "--only", "start", "--output", str(results)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=40)
    if ran.returncode == 2:
        pytest.skip(ran.stderr.strip())
    assert ran.returncode == 0, ran.stderr
    text = results.read_text()
    assert text.startswith("# Results\n")
    assert "## measured before" in text
    assert "| import tinysvc |" in text
    assert "python3 benchmarks/run.py --only start --quick" in text
