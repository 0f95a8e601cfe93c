"""The launchers: what they would do, what they refuse, and what shellcheck says of them."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parents[1] / "launch"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")])
RUN = ["--config", "configs/x.py", "--workdir", "a folder"]
GKE = ["--image", "i", "--claim", "c"]
DRY = {
    "local_processes.sh": (["--processes", "3", "--dry-run", "--", *RUN], "--num_processes 3 --process_id 2"),
    "slurm_gpu.sbatch": (["--dry-run", *RUN], "srun --kill-on-bad-exit=1"),
    "gke.sh": ([*GKE, "--dry-run", "--", *RUN], '"--workdir", "a folder"]'),
    "tpu_pod.sh": (["run", "--zone", "z", "--dry-run", "--", *RUN], "gcloud compute tpus tpu-vm ssh videogen --zone z"),
}


def start(name, *arguments, **variables):
    env = {**os.environ, **variables}
    return subprocess.run([LAUNCH / name, *arguments], env=env, capture_output=True, text=True, timeout=60)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_has_nothing_to_say():
    done = subprocess.run(["shellcheck", *SCRIPTS], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", DRY)
def test_a_dry_run_shows_the_commands_and_help_the_options(name):
    arguments, shown = DRY[name]
    done = start(name, *arguments)
    assert done.returncode == 0, done.stderr
    assert shown in done.stdout
    assert "configs/x.py" in done.stdout
    shown = start(name, "--help")
    assert shown.returncode == 0
    assert "--dry-run" in shown.stdout
    assert "set -euo" not in shown.stdout


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("local_processes.sh", [], "error: the arguments of the training must follow --"),
        ("local_processes.sh", ["--processes", "many", "--", *RUN], "error: --processes is 'many'"),
        ("local_processes.sh", ["--wrong"], "error: unknown option --wrong; try --help"),
        ("slurm_gpu.sbatch", [], "error: the arguments of the training are missing: --config"),
        ("gke.sh", ["--", *RUN], "error: --image (or IMAGE) must be given"),
        ("gke.sh", ["--image", "i", "--", *RUN], "error: --claim (or CLAIM) must be given"),
        (
            "gke.sh",
            [*GKE, "--topology", "4x3", "--chips-per-host", "8", "--", *RUN],
            "has 12 chips, which is not a multiple of 8",
        ),
        ("tpu_pod.sh", ["create"], "error: --zone (or TPU_ZONE) must be given"),
        ("tpu_pod.sh", ["fly"], "error: unknown action fly"),
        ("tpu_pod.sh", ["run", "--zone", "z"], "error: run needs the arguments of the training after --"),
    ],
)
def test_what_cannot_work_is_refused(name, arguments, message):
    done = start(name, *arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_jobset_has_no_blank_left_and_the_pod_its_hosts():
    done = start("gke.sh", *GKE, "--topology", "4x4x4", "--dry-run", "--", *RUN)
    assert "claimName: c" in done.stdout
    assert "${" not in done.stdout.split("apiVersion", 1)[1].replace('\\"$@\\"', "")
    assert "parallelism: 16" in done.stdout


@pytest.fixture
def python(tmp_path):
    """A `python` that writes down its calls and ends with the statuses listed in a file, one a start of process 0."""
    script = tmp_path / "bin" / "python"
    script.parent.mkdir()
    script.write_text(
        "#!/usr/bin/env bash\n"
        'if [ "$1" = -c ]; then echo 4321; exit; fi\n'
        f'echo "$*" >>{tmp_path}/calls\n'
        'case "$*" in *"--process_id 1"*) exit 0 ;; esac\n'
        f"status=$(head -1 {tmp_path}/statuses); sed -i 1d {tmp_path}/statuses\n"
        'if [ "$status" = killed ]; then kill -KILL $$; fi\n'
        "exit $status\n"
    )
    script.chmod(0o755)

    def run(*statuses, **variables):
        (tmp_path / "statuses").write_text("".join(f"{status}\n" for status in statuses))
        (tmp_path / "calls").write_text("")
        path = f"{script.parent}:{os.environ['PATH']}"
        done = start("local_processes.sh", "--max-restarts", "2", "--", *RUN, PATH=path, **variables)
        return done.returncode, (tmp_path / "calls").read_text().count("--process_id 0")

    return run


@pytest.mark.parametrize(
    ("statuses", "ends", "starts"),
    [
        ([0], 0, 1),
        ([75, "killed", 0], 0, 3),
        ([76, 0], 0, 2),
        ([2], 2, 1),
        ([75, 1], 1, 2),
        ([75, 75, 75, 0], 75, 3),
    ],
)
def test_local_processes_start_again_what_was_stopped_and_not_what_failed(python, statuses, ends, starts):
    assert python(*statuses) == (ends, starts)


def test_the_pods_hosts_are_set_up_before_anything_is_installed():
    shown = start("tpu_pod.sh", "install", "--zone", "z", "--setup", "mount x /mnt/runs", "--dry-run").stdout
    assert 0 <= shown.find("mount") < shown.find("git archive")
