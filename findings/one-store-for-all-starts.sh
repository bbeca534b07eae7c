#!/usr/bin/env bash
# torch 2.13.0 (CPU build), seen 2026-11-30.
# torchrun --standalone --max-restarts 1: a process writes a key into the store that it meets the others through, fails,
# and is started again.
# Guess: the second start has an empty store, as the comment in torch.distributed.rendezvous says ("we create a new
# TCPStore for every retry so no need to add prefix for each attempt").
# Behaviour: it has the first one's keys. Addresses of processes that died are among them: gloo, started again, was seen
# to connect to one (refused) or to wait for it without end, in 2 of 6 tries on a busy machine.
# With TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 the second start's store is empty.
# Output seen:
#   start 0 found nothing
#   start 1 found what start 0 left
#   start 0 found nothing
#   start 1 found nothing
# Exits with 1 when this changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet torch==2.13.0 numpy
cd "$place"
cat > started.py <<'PYTHON'
import os
import sys

from torch.distributed.rendezvous import rendezvous

start = os.environ["TORCHELASTIC_RESTART_COUNT"]
store, _, _ = next(rendezvous("env://"))
found = store.get("left").decode() if store.check(["left"]) else "nothing"
print(f"start {start} found {found}", flush=True)
store.set("left", f"what start {start} left")
sys.exit(start == "0")
PYTHON
run() {
    env "$@" "$place/venv/bin/python" -m torch.distributed.run --standalone --nproc-per-node 1 --max-restarts 1 started.py
}
{ run A=1; run TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1; } 2>/dev/null | tee seen.txt
[ "$(cat seen.txt)" = "start 0 found nothing
start 1 found what start 0 left
start 0 found nothing
start 1 found nothing" ]
