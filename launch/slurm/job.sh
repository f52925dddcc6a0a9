# shellcheck shell=bash
# What the job scripts share, sourced: a stop request reaches the command, and a stopped job requeues itself.
# `startup_seconds`, where the caller has set it, is how long a command may not yet hear a signal; `cancelled` a file
# whose presence says that a stopped job is not wanted any more.

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

# The highest step with a committed checkpoint in the run's folder, which the caller has set; 0 without one.
newest_step() {
  local newest=0 step
  for step in "${run_folder:-}"/checkpoints/step-*; do
    step=${step##*/step-}
    if [[ $step =~ ^[0-9]+$ ]] && [ $((10#$step)) -gt "$newest" ]; then newest=$((10#$step)); fi
  done
  echo "$newest"
}

# made_progress: false when the job has ended three times in a row without a newer checkpoint. The count is kept in
# plural-<job>.requeues in the folder of submission, "<newest step> <ends without a newer one>", until the job ends
# for another reason. A caller without a run folder is not judged.
made_progress() {
  local newest fruitless=0
  if [ -z "${run_folder:-}" ]; then return 0; fi
  newest=$(newest_step)
  if [ "$newest" -le "${step_before:-0}" ]; then fruitless=$((${fruitless_before:-0} + 1)); fi
  echo "$newest $fruitless" >"$requeues"
  [ "$fruitless" -lt 3 ]
}

# run_and_requeue NAME COMMAND...: to its end, with NAME in messages; does not return.
run_and_requeue() {
  local job=$1
  shift
  echo "$job: job ${SLURM_JOB_ID:-none}, restart ${SLURM_RESTART_COUNT:-0}, ${SLURM_JOB_NUM_NODES:-1} node(s), $(date -u +%FT%TZ)"
  requeues=plural-${SLURM_JOB_ID:-none}.requeues
  read -r step_before fruitless_before 2>/dev/null <"$requeues" || step_before=$(newest_step)
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
    if [ -n "${cancelled:-}" ] && [ -e "$cancelled" ]; then
      echo "$job: cancelled, not again" >&2
      rm -f "$requeues"
      exit "$code"
    fi
    if [ "${SLURM_RESTART_COUNT:-0}" -ge "${PLURAL_MAX_RESTARTS:-100}" ]; then
      echo "$job: restarted ${SLURM_RESTART_COUNT} times, not again (PLURAL_MAX_RESTARTS)" >&2
      rm -f "$requeues"
      exit "$code"
    fi
    if ! made_progress; then
      echo "$job: ended three times without a newer checkpoint than that of step $step_before, not again" >&2
      rm -f "$requeues"
      exit "$code"
    fi
    # Requeued before the script ends: a job that has ended with 75 counts as failed. A member of an array has
    # a job id of its own.
    scontrol requeue "$SLURM_JOB_ID" && sleep 60 # Slurm ends this script here
    ;;
  *) rm -f "$requeues" ;;
  esac
  exit "$code"
}
