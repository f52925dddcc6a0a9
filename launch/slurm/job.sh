# shellcheck shell=bash
# What the job scripts share, sourced: a stop request reaches the command, and a stopped job requeues itself.
# `startup_seconds`, where the caller has set it, is how long a command may not yet hear a signal; `cancelled` a file
# whose presence says that a stopped job is not wanted any more.

# The handler stands first: without it a signal ends the script. A signal that comes while ranks are being
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

# What is to be requeued: 75: stopped on request, state saved. 76: a peer was lost or hung. 137: a rank was killed,
# often for want of memory; without a run folder nobody could tell whether that leads anywhere.
is_for_another_start() {
  case $1 in
  75 | 76) true ;;
  137) [ -n "${run_folder:-}" ] ;;
  *) false ;;
  esac
}

# scontrol would requeue a job that was cancelled, too. While its processes still end, Slurm calls it COMPLETING, as
# it does one that has reached its time limit, whose reason says so.
was_cancelled() {
  local state
  if [ -n "${cancelled:-}" ] && [ -e "$cancelled" ]; then return; fi
  state=" $(scontrol --oneliner show job "${SLURM_JOB_ID:-none}" 2>/dev/null) "
  [[ $state =~ " JobState="(CANCELLED|COMPLETING)" " && $state != *" Reason=TimeLimit "* ]]
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
  if ! [[ ${PLURAL_MAX_RESTARTS:-100} =~ ^[0-9]{1,9}$ ]]; then
    echo "$job: error: PLURAL_MAX_RESTARTS is '$PLURAL_MAX_RESTARTS'; give a number" >&2
    exit 64
  fi
  echo "$job: job ${SLURM_JOB_ID:-none}, restart ${SLURM_RESTART_COUNT:-0}, ${SLURM_JOB_NUM_NODES:-1} node(s), $(date -u +%FT%TZ)"
  requeues=plural-${SLURM_JOB_ID:-none}.requeues
  read -r step_before fruitless_before 2>/dev/null <"$requeues" || step_before=$(newest_step)
  started=$SECONDS
  "$@" &
  pid=$!
  if [ "$stop" = 1 ]; then request_stop; fi
  # Not `wait` alone: a trap ends it early, and bash then loses the status of a command that ends in the same
  # instant, as where Slurm signals all processes of a job. It waits for the sleep before it runs a trap.
  while [ -n "$(jobs -pr)" ]; do sleep 0.5; done
  local code
  while
    caught=0
    wait "$pid"
    code=$?
    [ "$caught" = 1 ]
  do :; done
  echo "$job: ended with $code, $(date -u +%FT%TZ)"

  # 138: the stop request came before a rank could hear it, and ended it.
  if [ "$code" = 138 ] && [ "$stop" = 1 ]; then code=75; fi
  local why=
  if ! is_for_another_start "$code"; then
    rm -f "$requeues"
    exit "$code"
  fi
  if was_cancelled; then
    why=cancelled
  elif [ "${SLURM_RESTART_COUNT:-0}" -ge "${PLURAL_MAX_RESTARTS:-100}" ]; then
    why="restarted ${SLURM_RESTART_COUNT:-0} times (PLURAL_MAX_RESTARTS)"
  elif ! made_progress; then
    why="ended three times without a newer checkpoint than that of step $step_before"
  fi
  if [ -n "$why" ]; then
    echo "$job: $why, not again" >&2
    rm -f "$requeues"
    exit "$code"
  fi
  # Requeued before the script ends: a job that has ended with 75 counts as failed. A member of an array has
  # a job id of its own.
  scontrol requeue "$SLURM_JOB_ID" && sleep 60 # Slurm ends this script here
  exit "$code"
}
