#!/bin/sh
# A Slurm of one node on this machine, to try the executor out: root, and the packages slurm-wlm and munge.
# Jobs in the partition "low" are preempted, and queued again, by those in "high".
set -e
host=$(hostname -s)
mkdir -p /run/munge /var/log/munge /var/lib/munge /etc/munge /etc/slurm /var/spool/slurmd /var/spool/slurmctld
[ -f /etc/munge/munge.key ] || dd if=/dev/urandom of=/etc/munge/munge.key bs=1 count=1024 2>/dev/null
chown -R munge:munge /run/munge /var/log/munge /var/lib/munge /etc/munge
chmod 400 /etc/munge/munge.key
chmod 755 /run/munge
pgrep -x munged >/dev/null || su -s /bin/sh munge -c munged || munged --force
cat >/etc/slurm/slurm.conf <<CONF
ClusterName=trial
SlurmctldHost=$host
AuthType=auth/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation=/var/spool/slurmctld
SlurmdSpoolDir=/var/spool/slurmd
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
KillWait=10
ReturnToService=2
MpiDefault=none
NodeName=$host CPUs=$(nproc) RealMemory=1000 State=UNKNOWN
PartitionName=low Nodes=$host Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=60
PartitionName=high Nodes=$host MaxTime=INFINITE State=UP PriorityTier=10
CONF
pgrep -x slurmctld >/dev/null || slurmctld
sleep 1
pgrep -x slurmd >/dev/null || slurmd
sleep 2
sinfo
