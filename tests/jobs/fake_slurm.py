"""Stand-ins for sbatch, srun, squeue, sacct, scontrol and scancel on PATH: a cluster whose nodes are this machine.

`sbatch` keeps the script and, where `nodes` is there, starts every task as a process; `squeue` says which are alive;
`scontrol requeue` starts one again when it has ended. What each was called with is in `calls`.
"""

import os
import stat
import sys
from pathlib import Path

SBATCH = """#!{python}
import os, re, subprocess, sys
from pathlib import Path

here = Path({folder!r})
with (here / "calls").open("a") as calls:
    calls.write("sbatch " + " ".join(sys.argv[1:]) + chr(10))
if (here / "refuses").exists():
    print((here / "refuses").read_text(), file=sys.stderr)
    sys.exit(1)
text = Path(sys.argv[1]).read_text()
number = str(100 + len(list(here.glob("script-*"))))
(here / ("script-" + number)).write_text(text)
array = re.search(r"--array=0-([0-9]+)", text)
tasks = range(int(array[1]) + 1) if array else [None]
for task in tasks:
    name = number if task is None else number + "_" + str(task)
    (here / ("job-" + name)).write_text("PENDING")
    if (here / "nodes").exists():
        quiet = {{"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}}
        subprocess.Popen([sys.executable, str(here / "node.py"), name], start_new_session=True, **quiet)
print("Submitted batch job " + number)
"""

NODE = """import os, re, signal, subprocess, sys, time
from pathlib import Path

here = Path({folder!r})
name = sys.argv[1]
number, _, task = name.partition("_")
script = here / ("script-" + number)
state = here / ("job-" + name)
environment = {{**os.environ, "SLURM_JOB_ID": number, "SLURM_PROCID": "0"}}
if task:
    environment |= {{"SLURM_ARRAY_JOB_ID": number, "SLURM_ARRAY_TASK_ID": task}}
while True:
    (here / ("requeue-" + name)).unlink(missing_ok=True)
    state.write_text("RUNNING")
    process = subprocess.Popen(["bash", str(script)], env=environment, stdin=subprocess.DEVNULL)
    code = process.wait()
    if not (here / ("requeue-" + name)).exists():
        break
    state.write_text("PENDING")
cancelled = (here / ("cancel-" + name)).exists()
state.write_text("CANCELLED by 0" if cancelled else "COMPLETED" if code == 0 else "FAILED")
"""

SRUN = """#!{python}
import os, subprocess, sys
from pathlib import Path

here = Path({folder!r})
words = sys.argv[1:]
while words and words[0].startswith("-"):
    word = words.pop(0)
    if word in ("--output", "--error"):
        place = words.pop(0).replace("%t", "0").replace("%j", os.environ["SLURM_JOB_ID"])
        place = place.replace("%A", os.environ.get("SLURM_ARRAY_JOB_ID", "")).replace(
            "%a", os.environ.get("SLURM_ARRAY_TASK_ID", "")
        )
        os.dup2(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1 if word == "--output" else 2)
name = os.environ["SLURM_JOB_ID"]
if "SLURM_ARRAY_TASK_ID" in os.environ:
    name += "_" + os.environ["SLURM_ARRAY_TASK_ID"]
(here / ("pid-" + name)).write_text(str(os.getpid()))
os.execvp(words[0], words)
"""

SQUEUE = """#!{python}
import sys
from pathlib import Path

here = Path({folder!r})
if (here / "silent").exists():
    print("slurm_load_jobs error: Unable to contact slurm controller", file=sys.stderr)
    sys.exit(1)
for job in sorted(here.glob("job-*")):
    state = job.read_text()
    if state in ("PENDING", "RUNNING"):
        node, reason = ("node1", "None") if state == "RUNNING" else ("", "Priority")
        print("|".join([job.name[4:], state, node, reason]))
"""

SACCT = """#!{python}
import sys
from pathlib import Path

job = Path({folder!r}) / ("job-" + sys.argv[sys.argv.index("-j") + 1])
print(job.read_text() if job.exists() else "")
"""

SCONTROL = """#!{python}
import sys
from pathlib import Path

here = Path({folder!r})
assert sys.argv[1] == "requeue"
(here / ("requeue-" + sys.argv[2])).touch()
with (here / "calls").open("a") as calls:
    calls.write("scontrol requeue " + sys.argv[2] + chr(10))
"""

SCANCEL = """#!{python}
import os, signal, sys
from pathlib import Path

here = Path({folder!r})
for number in sys.argv[1:]:
    for job in here.glob("job-" + number + "*"):
        name = job.name[4:]
        (here / ("cancel-" + name)).touch()
        if (here / ("pid-" + name)).exists():
            os.kill(int((here / ("pid-" + name)).read_text()), signal.SIGTERM)
        else:
            job.write_text("CANCELLED by 0")
"""


def install_slurm(folder: Path, nodes: bool = True) -> Path:
    """Write the programs into a folder below this one, and return that, to be put on PATH.

    Args:
        nodes: whether jobs are run; else they wait for ever.
    """
    programs = folder / "bin"
    programs.mkdir(parents=True)
    values = {"python": sys.executable, "folder": str(folder)}
    for name, text in {
        "sbatch": SBATCH,
        "srun": SRUN,
        "squeue": SQUEUE,
        "sacct": SACCT,
        "scontrol": SCONTROL,
        "scancel": SCANCEL,
    }.items():
        path = programs / name
        path.write_text(text.format(**values))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    (folder / "node.py").write_text(NODE.format(**values))
    if nodes:
        (folder / "nodes").touch()
    return programs


def on_path(programs: Path) -> str:
    """Return a PATH on which these programs come first."""
    return os.pathsep.join([str(programs), os.environ["PATH"]])
