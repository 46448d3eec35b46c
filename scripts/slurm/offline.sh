#!/usr/bin/env bash
# A grid on a cluster whose compute nodes have no network, in three steps from the login node, which has one:
#
#   SWEEP=study_diagnosis scripts/slurm/offline.sh hydra.launcher.partition=gpu hydra.launcher.gpus_per_node=1
#
# What follows the script's name goes to the sweep. Started again it goes on: what is here is not fetched anew, what is
# done or in the queue is not submitted anew.
set -euo pipefail
SWEEP=${SWEEP:-demo}
OUTPUT=${OUTPUT:-runs/$SWEEP}
PYTHON=${PYTHON:-python}

# 1. Weights and data come to the file system that login and compute nodes share. Where they lie is told by HF_HOME,
#    VLMBENCH_DATA and VLMBENCH_CACHE; point them at shared disks if your home directory is small. Weights are locked in
#    vlmbench.lock: jobs take exactly these.
"$PYTHON" -m vlmbench.fetch -m "sweep=$SWEEP"

# 2. Jobs inherit the environment, and run where this script runs. Nothing asks the network from here on: what is not
#    here fails its own cell with a message, and no job hangs. `wait=false` would return at once.
export HF_HUB_OFFLINE=1
status=0
"$PYTHON" -m vlmbench.train -m "sweep=$SWEEP" launcher=slurm logger=wandb logger.mode=offline "output=$OUTPUT" "$@" ||
  status=$?

# 3. The curves wait in the cells' directories; records and the report need no W&B.
if [ -z "${WANDB_API_KEY:-}" ] && ! grep -qs 'machine api.wandb.ai' "${NETRC:-$HOME/.netrc}"; then
  echo "No key for W&B (WANDB_API_KEY, or wandb login): nothing is sent. Later: $PYTHON -m wandb sync \$(find $OUTPUT -name 'offline-run-*')"
else
  find "$OUTPUT" -type d -name 'offline-run-*' -print0 | xargs -0 -r "$PYTHON" -m wandb sync
fi
exit "$status"
