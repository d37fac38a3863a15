"""SLURM jobs: the keys of the file, the job script, and that all jobs are cancelled at the end."""

import json
import os
import re
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from mser.cache import FeatureCache
from mser.pipeline.compute import Backend
from mser.pipeline.compute.slurm import SlurmKeys, check_slurm, read_slurm_file, submitted
from mser.pipeline.corpora import synthetic
from mser.pipeline.errors import PipelineError, UsageError
from mser.pipeline.extract.engine import WORKER_SIZING

CPU = torch.device("cpu")
DOCS = Path(__file__).parents[3] / "docs" / "clusters.md"

# Replacements of sbatch and scancel that run a job in the background on this machine, and end it.
# The number of a job is not a process id: scancel writes a file, for which the keeper of the job
# waits. So scancel can never end another process.
SBATCH = """#!{python}
import os, shutil, subprocess, sys
number = 1000 + len([name for name in os.listdir("{folder}") if name.startswith("job-")])
script = shutil.copy(sys.argv[1], "{folder}/job-%d" % number)  # the file is gone after this
subprocess.Popen(
    [sys.executable, "{folder}/keeper", script],
    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
)
print("Submitted batch job", number)
"""
KEEPER = """
import os, signal, subprocess, sys, time
script = sys.argv[1]
job = subprocess.Popen(["bash", script], start_new_session=True)
while job.poll() is None and not os.path.exists(script.replace("job-", "cancelled-")):
    time.sleep(0.05)
if job.poll() is None:
    os.killpg(job.pid, signal.SIGKILL)  # the child leads a process group of its own
job.wait()
open(script.replace("job-", "ended-"), "w").close()
"""
SCANCEL = """#!{python}
import os, sys
assert os.path.exists("{folder}/job-" + sys.argv[1]), "no such job"
open("{folder}/cancelled-" + sys.argv[1], "w").close()
"""
REFUSING = """#!/bin/sh
echo "sbatch: error: invalid partition specified: gpu" >&2
exit 1
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the PATH with commands of SLURM, which record their jobs there."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    command(folder, "sbatch", SBATCH)
    command(folder, "scancel", SCANCEL)
    (folder / "keeper").write_text(KEEPER)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def command(folder: Path, name: str, script: str) -> None:
    script = script.replace("{folder}", str(folder)).replace("{python}", sys.executable)
    (folder / name).write_text(script)
    (folder / name).chmod(0o755)


def written(folder: Path, text: str) -> Path:
    path = folder / "slurm.toml"
    path.write_text(text)
    return path


BOTH = 'cores = 4\nmemory = "16 GB"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cores = ", "is not TOML"),
        (BOTH + "partition = 'gpu'", "unknown key in .*slurm.toml 'partition'"),
        (BOTH + "que = 'gpu'", "did you mean 'queue'"),
        ("cores = 4", "memory is missing: add it"),
        ('memory = "1 GB"', "cores is missing: add it"),
        ('cores = "4"\nmemory = "1 GB"', "cores = '4': give a whole number"),
        ('cores = true\nmemory = "1 GB"', "cores = True: give a whole number"),
        ('cores = 0\nmemory = "1 GB"', "cores = 0: give 1 or more"),
        ('cores = 4\nmemory = "lots"', "memory = 'lots': give a size"),
        ("cores = 4\nmemory = 16", "memory = 16: give a text in quotation marks"),
        (BOTH + "walltime = 08:00:00", "walltime = .*: give a text in quotation marks"),
        (BOTH + 'job_extra_directives = "--gres=gpu:1"', "job_extra_directives = .*: give a list"),
        (BOTH + "job_script_prologue = [1]", "job_script_prologue = 1: give a text"),
        (BOTH + "jobs = 0", "jobs = 0: give 1 or more"),
        (BOTH + "processes = 5", "5 processes need at least 5 cores"),
    ],
)
def test_an_invalid_file_is_a_usage_error(tmp_path, text, message):
    with pytest.raises(UsageError, match=message):
        Backend(WORKER_SIZING, slurm=written(tmp_path, text))


def test_a_missing_file_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match=r"none\.toml: No such file"):
        Backend(WORKER_SIZING, slurm=tmp_path / "none.toml")
    with pytest.raises(UsageError, match="Is a directory"):
        Backend(WORKER_SIZING, slurm=tmp_path)


def test_the_file_in_the_docs_is_read(tmp_path):
    page = DOCS.read_text(encoding="utf-8")
    example = page.split("```toml\n")[1].split("```")[0]
    file = read_slurm_file(written(tmp_path, example))
    assert file.jobs == 4
    table = page.split("| key | meaning |")[1].split("\n\n")[0]
    named = [
        key
        for row in table.strip().splitlines()
        for key in re.findall(r"`(\w+)`", row.split("|")[1])
    ]
    assert sorted(named) == sorted(SlurmKeys.__annotations__)


def test_without_dask_jobqueue_the_error_names_the_package(tmp_path, monkeypatch):
    file = read_slurm_file(written(tmp_path, BOTH))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(PipelineError, match=r"pip install 'mser\[slurm\]'"):
        check_slurm(file)


def test_without_slurm_the_error_names_where_to_run(tmp_path, monkeypatch):
    file = read_slurm_file(written(tmp_path, BOTH))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PipelineError, match="this machine has no sbatch"):
        check_slurm(file)


def test_the_job_script(tmp_path, slurm):
    command(slurm, "sbatch", "#!/bin/sh\necho Submitted batch job 1\n")
    text = """
    jobs = 2
    cores = 8
    processes = 2
    memory = "32 GB"
    queue = "gpu"
    account = "speech"
    walltime = "08:00:00"
    job_extra_directives = ["--gres=gpu:2"]
    job_script_prologue = ["module load cuda", "export HF_HOME=/shared/hf"]
    log_directory = "{logs}"
    """
    file = read_slurm_file(written(tmp_path, text.replace("{logs}", str(tmp_path / "logs"))))
    with submitted(file, CPU, WORKER_SIZING) as jobs:
        lines = jobs.cluster.job_script().splitlines()
    directives = {line for line in lines if line.startswith("#SBATCH")}
    assert {
        "#SBATCH -J mser",
        "#SBATCH -p gpu",
        "#SBATCH -A speech",
        "#SBATCH -t 08:00:00",
        "#SBATCH --cpus-per-task=8",
        "#SBATCH --mem=30G",  # SLURM's G is GiB
        "#SBATCH --gres=gpu:2",
        f"#SBATCH -o {tmp_path}/logs/mser-%J.out",
    } <= directives
    worker = lines[-1].split()
    assert "export MALLOC_ARENA_MAX=1" in lines  # a pass reuses the memory of the one before
    assert lines[-3:-1] == ["module load cuda", "export HF_HOME=/shared/hf"]
    assert worker[0] == sys.executable
    assert worker[worker.index("--nthreads") + 1] == "3"  # jobs at once, not cores
    assert worker[worker.index("--nworkers") + 1] == "2"
    limits = [after for name, after in pairwise(worker) if name == "--memory-limit"]
    assert limits[-1] == "0"  # the last one counts: SLURM limits the memory


def test_a_job_that_is_refused_ends_the_run_in_one_sentence(tmp_path, slurm):
    command(slurm, "sbatch", REFUSING)
    file = read_slurm_file(written(tmp_path, BOTH))
    message = r"SLURM refused a job: sbatch: error: invalid partition specified: gpu$"
    with pytest.raises(PipelineError, match=message), submitted(file, CPU, WORKER_SIZING):
        pass


def test_a_scheduler_that_cannot_start_is_an_error(tmp_path, slurm):
    file = read_slurm_file(written(tmp_path, BOTH + 'interface = "nonesuch0"'))
    message = r"cannot start a scheduler: .*'nonesuch0'"
    with pytest.raises(PipelineError, match=message), submitted(file, CPU, WORKER_SIZING):
        pass


def test_jobs_extract_a_corpus_and_are_cancelled_at_the_end(tmp_path, slurm, encoders, mser):
    synthetic.make(tmp_path / "corpus", utterances_per_session=2)
    file = written(tmp_path, 'jobs = 2\ncores = 1\nmemory = "4 GB"\n')
    done = mser(
        *("extract", "--dataset", "synthetic", "--root", tmp_path / "corpus", "--json"),
        *("--cache", tmp_path / "cache", "--modalities", "text", "--shard-mib", 0.001),
        *("--text-encoder", encoders["text"], "--slurm", file),
        OMP_NUM_THREADS="1",
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    (text,) = json.loads(done.stdout)["modalities"]
    assert text["new"] == 8
    entry = FeatureCache(tmp_path / "cache").open("synthetic", modality="text")
    assert len(entry) == 8
    for number in (1000, 1001):
        assert (slurm / f"job-{number}").exists()
        assert (slurm / f"cancelled-{number}").exists()
        wait_until((slurm / f"ended-{number}").exists)
    assert not (slurm / "job-1002").exists()


def wait_until(condition) -> None:
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen")
