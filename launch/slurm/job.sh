# shellcheck shell=bash
# What the job scripts share, sourced: a stop request reaches the command, and a stopped job requeues itself.
# `startup_seconds`, where the caller has set it, is how long a command may not yet hear a signal.

# The handler stands first: without it a signal ends the script. bash runs it only between commands, hence
# a command in the background and `wait`. A signal that comes while ranks are being
# started would kill them or be lost: it is held back until they are up. TERM is treated as USR1: under
# mpirun the ranks have about two seconds after a TERM, and then lose at most one checkpoint interval.
startup_seconds=${startup_seconds:-10}
pid=
stop=0
caught=0
# shellcheck disable=SC2317 # called by the trap
request_stop() {
  stop=1
  caught=1
  if [ -z "$pid" ]; then return; fi # sent below, when there is a command to send it to
  while [ $((SECONDS - started)) -lt "$startup_seconds" ] && kill -0 "$pid" 2>/dev/null; do sleep 1; done
  kill -USR1 "$pid" 2>/dev/null
}
trap request_stop USR1 TERM

# run_and_requeue NAME COMMAND...: to its end, with NAME in messages; does not return.
run_and_requeue() {
  local job=$1
  shift
  echo "$job: job ${SLURM_JOB_ID:-none}, restart ${SLURM_RESTART_COUNT:-0}, ${SLURM_JOB_NUM_NODES:-1} node(s), $(date -u +%FT%TZ)"
  started=$SECONDS
  "$@" &
  pid=$!
  if [ "$stop" = 1 ]; then request_stop; fi
  # A trap ends `wait` early, while the command lives on: wait again. bash keeps the status of a process that
  # has ended in between.
  local code
  while
    caught=0
    wait "$pid"
    code=$?
    [ "$caught" = 1 ]
  do :; done
  echo "$job: ended with $code, $(date -u +%FT%TZ)"

  # 75: stopped on request, state saved. 76: a peer was lost or hung. 138: the stop request came before a rank
  # could hear it, and ended it. Anything else waits for a person.
  if [ "$code" = 138 ] && [ "$stop" = 1 ]; then code=75; fi
  case $code in
  75 | 76)
    if [ "${SLURM_RESTART_COUNT:-0}" -ge "${PLURAL_MAX_RESTARTS:-100}" ]; then
      echo "$job: restarted ${SLURM_RESTART_COUNT} times, not again (PLURAL_MAX_RESTARTS)" >&2
      exit "$code"
    fi
    # Requeued before the script ends: a job that has ended with 75 counts as failed. A member of an array has
    # a job id of its own.
    scontrol requeue "$SLURM_JOB_ID" && sleep 60 # Slurm ends this script here
    ;;
  esac
  exit "$code"
}
