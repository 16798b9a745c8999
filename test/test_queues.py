"""utils/slurm.sh and utils/queue.sh: under a real one-node Slurm where it is installed, and under a stand-in."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = {"slurm.sh": "sbatch", "queue.sh": "qsub"}
COUNTS = "echo start >> count.JOB; [[ $(wc -l < count.JOB) -gt $0 || JOB != 2 ]]"  # job 2 fails $0 times


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(params=PROGRAMS)
def stand_in(request: pytest.FixtureRequest, tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A runner whose queue is test/queue_stand_in.py."""
    return put_stand_in(request.param, tmp_path, monkeypatch)


def put_stand_in(runner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / PROGRAMS[runner]).symlink_to(ROOT / "test" / "queue_stand_in.py")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return runner


def asked(tmp_path: Path) -> list[str]:
    return (tmp_path / "bin" / "asked").read_text().splitlines()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Configuration of a Slurm of one node that runs for these tests, as root, with its own munge socket."""
    missing = [name for name in ("slurmctld", "slurmd", "sbatch", "munged") if not shutil.which(name)]
    if missing or os.geteuid() != 0:
        pytest.skip(f"a real Slurm needs root and the packages munge slurmctld slurmd slurm-client: {missing}")
    folder = tmp_path_factory.mktemp("slurm")
    (folder / "key").write_bytes(os.urandom(128))
    (folder / "key").chmod(0o400)
    host = os.uname().nodename.split(".")[0]
    settings = f"""ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
MinJobAge=5
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=1000
PartitionName=all Nodes=ALL Default=YES State=UP
"""
    (folder / "slurm.conf").write_text(settings)
    munge = ["munged", "--force", "--foreground", f"--socket={folder}/munge.socket", f"--key-file={folder}/key"]
    munge += [f"--pid-file={folder}/munge.pid", f"--log-file={folder}/munge.log", f"--seed-file={folder}/seed"]
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    daemons = []
    with (folder / "log").open("w") as log:
        for command in (munge, ["slurmctld", "-D"], ["slurmd", "-D"]):
            daemons.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
            time.sleep(0.5)
    try:
        for _ in range(100):
            state = subprocess.run(["sinfo", "-h", "-o", "%t"], env=environment, capture_output=True, text=True)
            if state.stdout.strip() == "idle":
                break
            time.sleep(0.1)
        else:
            pytest.skip(f"Slurm is installed but does not start here: {(folder / 'log').read_text()[-500:]}")
        yield folder / "slurm.conf"
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(10)


@pytest.fixture
def real(cluster: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SLURM_CONF", str(cluster))
    return "slurm.sh"


@pytest.fixture(params=[*PROGRAMS, "real"])
def queue(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both runners under the stand-in, and slurm.sh under Slurm."""
    if request.param == "real":
        return str(request.getfixturevalue("real"))
    request.getfixturevalue("work")
    return put_stand_in(request.param, tmp_path, monkeypatch)


def run(runner: str, *words: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
    line = [str(ROOT / "utils" / runner), *words]
    return subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds)


def test_an_array_runs_and_only_the_failed_job_again(queue: str) -> None:
    words = ["JOB=1:3", "log/x.JOB.log", "bash", "-c", COUNTS, "1", "a  b", "$x"]
    first = run(queue, *words)
    assert first.returncode == 1
    assert f"{queue}: job 2 of 3 failed, log is in log/x.2.log" in first.stderr
    second = run(queue, "--only_failed", "true", *words)
    assert (second.returncode, second.stderr, second.stdout) == (0, "", "")
    assert [len(Path(f"count.{job}").read_text().split()) for job in (1, 2, 3)] == [1, 2, 1]
    log = Path("log/x.1.log").read_text().splitlines()
    assert log[0].startswith("# bash -c ") and log[0].endswith("1 a\\ \\ b \\$x")
    assert log[-1].startswith("# Ended (code 0)")


def test_tries(queue: str) -> None:
    done = run(queue, "--tries", "3", "--max-jobs-run", "2", "JOB=1:3", "x.JOB.log", "bash", "-c", COUNTS, "2")
    assert done.returncode == 0, done.stderr
    assert "try 2 of 3: 1 job(s) failed, once more" in done.stderr
    assert [len(Path(f"count.{job}").read_text().split()) for job in (1, 2, 3)] == [1, 3, 1]


def test_the_local_runner_does_the_same(work: Path) -> None:
    assert run("run.sh", "JOB=1:3", "x.JOB.log", "bash", "-c", COUNTS, "1").returncode == 1
    assert run("run.sh", "--only-failed", "true", "JOB=1:3", "x.JOB.log", "bash", "-c", COUNTS, "1").returncode == 0
    assert [len(Path(f"count.{job}").read_text().split()) for job in (1, 2, 3)] == [1, 2, 1]
    assert run("run.sh", "--only_failed", "true", "JOB=1:3", "x.JOB.log", "bash", "-c", COUNTS, "0").returncode == 0
    assert [len(Path(f"count.{job}").read_text().split()) for job in (1, 2, 3)] == [2, 3, 2]  # another command
    for job in (1, 2, 3):
        Path(f"count.{job}").unlink()
    assert run("run.sh", "--tries", "2", "JOB=1:3", "y.JOB.log", "bash", "-c", COUNTS, "2").returncode == 1
    assert [len(Path(f"count.{job}").read_text().split()) for job in (1, 2, 3)] == [1, 2, 1]


def test_what_the_queue_is_asked_for(stand_in: str, tmp_path: Path) -> None:
    options = ["--mem", "8G", "--gpu", "2", "--num-threads", "3", "--time", "4:00:00", "--max-jobs-run", "5"]
    assert run(stand_in, *options, "--nodes", "2", "JOB=1:2", "log/x.JOB.log", "true").returncode == 0
    assert run(stand_in, "--gpu", "0", "y.log", "true").returncode == 0
    several, one = asked(tmp_path)
    if stand_in == "slurm.sh":
        wanted = ["--mem=8G", "--gres=gpu:2", "--cpus-per-task=3", "--time=4:00:00", "--array=1-2%5"]
        unwanted = ["--gres", "--nodes"]
    else:
        wanted = ["-l mem_free=8G,ram_free=8G", "-l gpu=2", "-pe smp 3", "-l h_rt=4:00:00", "-t 1-2", "-tc 5"]
        unwanted = ["gpu", "nodes"]
    assert all(f" {words} " in several for words in wanted), several
    assert not any(word in one for word in unwanted) and "--nodes" not in several  # `true` takes one node
    assert "threads=3\n" in Path("log/x.1.log").read_text()


def test_rules_of_the_cluster(stand_in: str, tmp_path: Path) -> None:
    Path("conf").mkdir()
    program = PROGRAMS[stand_in]
    extra = "--mem=$0" if stand_in == "slurm.sh" else "-l ram=$0"
    rules = f"# ours\ncommand {program}\ndefault big=no\noption big=no\noption big=* {extra}\noption mem=* {extra}\n"
    Path("conf", stand_in.replace(".sh", ".conf")).write_text(rules)
    assert run(stand_in, "--big", "9G", "x.log", "true").returncode == 0
    assert run(stand_in, "x.log", "true").returncode == 0
    big, plain = asked(tmp_path)
    assert extra.replace("$0", "9G") in big and extra.split("$0")[0] not in plain
    refused = run(stand_in, "--gpu", "1", "x.log", "true")
    assert refused.returncode == 2 and "unknown option --gpu 1: conf/" in refused.stderr
    Path("own.conf").write_text("sbatch please\n")
    refused = run(stand_in, "--config", "own.conf", "x.log", "true")
    assert refused.returncode == 2 and "own.conf: found 'sbatch', expected command, option or default" in refused.stderr
    assert run(stand_in, "--config", "none.conf", "x.log", "true").returncode == 2


def test_a_queue_that_refuses(stand_in: str, tmp_path: Path) -> None:
    Path("own.conf").write_text(f"command {PROGRAMS[stand_in]} --bogus\n")
    refused = run(stand_in, "--config", "own.conf", "x.log", "true")
    assert refused.returncode == 2 and "did not take the job: " in refused.stderr and "--bogus" in refused.stderr


def test_a_task_that_vanishes_has_failed(stand_in: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(stand_in, "JOB=1:2", "x.JOB.log", "true").returncode == 0
    monkeypatch.setenv("GONE", "2")
    done = run(stand_in, "JOB=1:2", "x.JOB.log", "true")  # the log of the first run ended well
    assert done.returncode == 1 and "job 2 of 2 failed, log is in x.2.log" in done.stderr
    assert "job 1" not in done.stderr


def test_ending_the_runner_takes_the_jobs_out_of_the_queue(real: str) -> None:
    line = [str(ROOT / "utils" / real), "JOB=1:4", "x.JOB.log", "sleep", "600"]
    process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    end = time.time() + 20
    while not Path("x.1.log").exists() and time.time() < end:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 143
    while subprocess.run(["squeue", "-h", "-t", "R,PD"], capture_output=True).stdout and time.time() < end + 20:
        time.sleep(0.1)
    assert not subprocess.run(["squeue", "-h", "-t", "R,PD"], capture_output=True).stdout


NODES = """#!/usr/bin/env bash
shift
for node in 0 1; do "$@" & pids+=($!); done
for pid in "${pids[@]}"; do wait "$pid" || exit 1; done
"""
SUM = """
import os, torch
torch.distributed.init_process_group("gloo")
value = torch.ones(1) * int(os.environ["RANK"])
torch.distributed.all_reduce(value)
open(f"sum.{os.environ['RANK']}", "w").write(f"{value.item()} of {os.environ['WORLD_SIZE']}")
torch.distributed.destroy_process_group()
"""


@pytest.fixture
def two_nodes(tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """slurm.sh on a stand-in for a cluster of two nodes, both this machine; the folder of its programs."""
    put_stand_in("slurm.sh", tmp_path, monkeypatch)
    put_program(tmp_path / "bin/srun", NODES)
    put_program(tmp_path / "bin/scontrol", "#!/bin/sh\necho localhost\necho other\n")
    return tmp_path / "bin"


def put_program(path: Path, body: str) -> None:
    path.write_text(body)
    path.chmod(0o755)


TORCHRUN = ("--nodes", "2", "x.log", "torchrun", "--standalone", "--nproc_per_node", "2", "sum.py")


def test_nodes_are_told_where_to_meet(two_nodes: Path) -> None:
    """srun starts torchrun on each node, with one meeting point for all, at a port where nobody listens."""
    put_program(two_nodes / "torchrun", '#!/bin/sh\necho "started: $*"\n')
    done = run("slurm.sh", *TORCHRUN)
    assert done.returncode == 0, Path("x.log").read_text()
    started = [line for line in Path("x.log").read_text().splitlines() if line.startswith("started: ")]
    assert len(started) == 2 and len(set(started)) == 1
    place = r"--nnodes 2 --rdzv_id (\d+) --rdzv_backend c10d --rdzv_endpoint localhost:(\d+)"
    found = re.fullmatch(rf"started: {place} --nproc_per_node 2 sum.py", started[0])
    assert found and int(found[2]) >= 20000 + int(found[1]) % 12000
    assert "--nodes=2 --ntasks-per-node=1" in (two_nodes / "asked").read_text()


def test_a_port_that_is_taken_is_passed_over(two_nodes: Path) -> None:
    put_program(two_nodes / "torchrun", '#!/bin/sh\necho "started: $*"\n')
    first = next(port for port in range(20000, 32000) if free(range(port, port + 3)))
    (two_nodes / "sbatch").unlink()
    body = f"#!/bin/bash\necho 7\nSLURM_JOB_ID={first - 20000} exec bash ${{@: -1}}\n"
    put_program(two_nodes / "sbatch", body)
    with socket.create_server(("localhost", first)), socket.create_server(("localhost", first + 1)):
        run("slurm.sh", *TORCHRUN)
    assert f"localhost:{first + 2} " in Path("x.log").read_text()


def free(ports: range) -> bool:
    """Whether nobody listens at any of these."""
    with ExitStack() as stack:
        return all(stack.enter_context(socket.socket()).connect_ex(("localhost", port)) for port in ports)


@pytest.mark.slow
def test_nodes_meet(two_nodes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two torchruns, as srun would start them on two nodes, form one group of four processes."""
    monkeypatch.setenv("PATH", f"{two_nodes}:{Path(sys.executable).parent}:{os.environ['PATH']}")
    Path("sum.py").write_text(SUM)
    done = run("slurm.sh", *TORCHRUN, seconds=600)
    assert done.returncode == 0, Path("x.log").read_text()
    assert [Path(f"sum.{rank}").read_text() for rank in range(4)] == ["6.0 of 4"] * 4
