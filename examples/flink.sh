#!/usr/bin/env bash
# From a bare Flink 1.19 to a dataset, on one machine. docs/flink.md explains each step.
#
#   examples/flink.sh run --input urls.txt --output data/tfrecords    start a cluster, run, stop it
#   examples/flink.sh start                                           start a cluster until Ctrl-C
#
# Settings, as environment variables:
#   FLINK_HOME     folder of the Flink distribution, with lib/
#   BOOT           Beam's program that starts a Python worker
#   JOB_SERVER     Beam's job server for Flink 1.19, a jar; Beam downloads one if this is empty
#   PYTHON         a Python that has beam_pipeline installed
#   TASK_MANAGERS  number of TaskManagers; each starts one worker process
#   SLOTS          tasks at a time in a TaskManager
#   REST_PORT, RPC_PORT    ports of the JobManager, on loopback
#   WORK_DIR       folder for configuration, log and temporary files; removed at the end if unset
set -euo pipefail

: "${FLINK_HOME:?set it to the folder of Flink 1.19}"
: "${BOOT:?set it to the boot program of the Beam SDK}"
JOB_SERVER=${JOB_SERVER:-}
PYTHON=$(command -v "${PYTHON:-python3}")
# TaskManagers have their own working directories.
for name in FLINK_HOME BOOT JOB_SERVER PYTHON WORK_DIR; do
  case ${!name:-} in
    "" | /*) ;;
    *) declare "$name=$PWD/${!name}" ;;
  esac
done
TASK_MANAGERS=${TASK_MANAGERS:-2}
SLOTS=${SLOTS:-2}
REST_PORT=${REST_PORT:-8081}
RPC_PORT=${RPC_PORT:-6123}

configure() {
  cat > "$folder/config.yaml" << EOF
jobmanager.rpc.address: 127.0.0.1
jobmanager.rpc.port: $RPC_PORT
jobmanager.bind-host: 127.0.0.1
rest.address: 127.0.0.1
rest.bind-address: 127.0.0.1
rest.port: $REST_PORT
taskmanager.host: 127.0.0.1
taskmanager.bind-host: 127.0.0.1
taskmanager.numberOfTaskSlots: $SLOTS
taskmanager.cpu.cores: $SLOTS
taskmanager.memory.framework.heap.size: 128m
taskmanager.memory.framework.off-heap.size: 128m
taskmanager.memory.task.heap.size: 512m
taskmanager.memory.task.off-heap.size: 128m
taskmanager.memory.managed.size: 256m
taskmanager.memory.network.min: 512m
taskmanager.memory.network.max: 512m
taskmanager.memory.jvm-metaspace.size: 256m
taskmanager.memory.jvm-overhead.min: 192m
taskmanager.memory.jvm-overhead.max: 192m
taskmanager.network.sort-shuffle.min-buffers: 64
task.cancellation.timeout: 15000
restart-strategy.type: fixed-delay
restart-strategy.fixed-delay.attempts: 20
restart-strategy.fixed-delay.delay: 5 s
heartbeat.interval: 2000
heartbeat.timeout: 10000
io.tmp.dirs: $folder
EOF
}

flink() { # MAIN_CLASS JVM_OPTION...
  local main=$1
  shift
  exec java "$@" -Dlog4j2.level=WARN -cp "$FLINK_HOME/lib/*" \
    "org.apache.flink.runtime.$main" --configDir "$folder"
}

job_manager() {
  flink entrypoint.StandaloneSessionClusterEntrypoint -Xmx512m
}

# The heap and direct memory that Flink's own scripts derive from the configuration. The boot
# program leaves a file in its working directory, so each TaskManager has its own. It runs the
# `python` that is first in PATH.
task_manager() {
  mkdir -p "$folder/$1"
  cd "$folder/$1"
  export PATH="${PYTHON%/*}:$PATH" RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1
  flink taskexecutor.TaskManagerRunner -Xmx640m -XX:MaxDirectMemorySize=1g
}

# Restarts a TaskManager that ends, as Kubernetes and YARN do.
keep_task_manager() {
  local child=
  trap 'kill "$child" 2> /dev/null; exit' TERM
  while :; do
    task_manager "$1" &
    child=$!
    wait "$child" || sleep 1
  done
}

count_slots() {
  "$PYTHON" - "http://127.0.0.1:$REST_PORT/overview" << 'EOF' 2> /dev/null || echo 0
import json, sys, urllib.request
print(json.load(urllib.request.urlopen(sys.argv[1], timeout=5))["slots-total"])
EOF
}

stop() {
  local pids
  mapfile -t pids < <(jobs -p)
  [ "${#pids[@]}" = 0 ] || kill "${pids[@]}" 2> /dev/null || true
  wait
  [ -n "${WORK_DIR:-}" ] || rm -rf "$folder"
}

start() {
  configure
  job_manager >> "$folder/log" 2>&1 &
  for number in $(seq "$TASK_MANAGERS"); do
    keep_task_manager "$number" >> "$folder/log" 2>&1 &
  done
  for _ in $(seq 60); do
    [ "$(count_slots)" -lt $((TASK_MANAGERS * SLOTS)) ] || return 0
    sleep 1
  done
  tail -n 20 "$folder/log" >&2
  echo "The Flink cluster did not start within a minute." >&2
  return 1
}

# PROCESS: each TaskManager starts its worker itself. Flink 1.19 is named, since Beam 2.77 would
# otherwise take the job server of Flink 2.2.
run() {
  "$PYTHON" -m beam_pipeline.run "$@" \
    --runner FlinkRunner --flink_version 1.19 --flink_master "localhost:$REST_PORT" \
    ${JOB_SERVER:+--flink_job_server_jar "$JOB_SERVER"} \
    --parallelism $((TASK_MANAGERS * SLOTS)) \
    --environment_type PROCESS --environment_option "process_command=$BOOT"
}

command=${1:-}
shift || true
case $command in
  start | run) ;;
  *)
    echo "usage: $0 start | run OPTION...; see the comment at the top of this file" >&2
    exit 2
    ;;
esac
folder=${WORK_DIR:-$(mktemp -d)}
trap stop EXIT
trap 'exit 143' TERM
trap 'exit 130' INT
start
if [ "$command" = run ]; then
  run "$@"
else
  echo "Flink's page: http://localhost:$REST_PORT"
  wait
fi
