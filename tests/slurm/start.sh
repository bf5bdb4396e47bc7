#!/usr/bin/env bash
# Start a SLURM of one node on this machine: start.sh DIR. Needs root, the Debian packages slurm-wlm and munge, no
# systemd. State, logs and slurm.conf go to DIR, which must be on a local disk; stop.sh DIR ends what it started.
set -euo pipefail
dir=$(realpath "${1:?directory for state and logs}")
host=$(hostname -s)
mkdir -p "$dir"/{controller,node,log}
chmod 755 "$dir"

munge_dir=$dir/munge
mkdir -p "$munge_dir"
chown -R munge:munge "$munge_dir"
chmod 755 "$munge_dir"
runuser -u munge -- dd if=/dev/urandom of="$munge_dir/key" bs=1 count=128 status=none
chmod 400 "$munge_dir/key"
runuser -u munge -- munged --key-file="$munge_dir/key" --socket="$munge_dir/socket" \
  --pid-file="$munge_dir/pid" --log-file="$munge_dir/log" --seed-file="$munge_dir/seed"

memory=$(slurmd -C | grep -oP 'RealMemory=\K[0-9]+')
cat >"$dir/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=${SLURM_TEST_PORT:-16817}
SlurmdPort=$((${SLURM_TEST_PORT:-16817} + 1))
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$munge_dir/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation=$dir/controller
SlurmdSpoolDir=$dir/node
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
MpiDefault=none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,batch_sched_delay=0,bf_interval=2
KillWait=5
OverTimeLimit=0
MinJobAge=30
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$((memory - 500)) State=UNKNOWN
PartitionName=test Nodes=$host Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
CONF

export SLURM_CONF=$dir/slurm.conf
slurmctld
slurmd
for _ in $(seq 100); do
  if [ "$(sinfo --noheader --format=%t 2>/dev/null)" = idle ]; then
    exit 0
  fi
  sleep 0.2
done
echo "the node did not come up: $(tail -n 3 "$dir"/log/*.log | tr '\n' ' ')" >&2
exit 1
