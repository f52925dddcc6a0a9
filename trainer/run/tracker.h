// The tracker: a process of its own that sends a run's figures to TensorBoard or Weights & Biases.
//
// Owns: how it is started beside a run. Does not own: what it sends (`plural track`, which reads
// metrics.jsonl and the recipe), when it ends: by itself, when the run's lock is free. Thread rule: main
// thread of rank 0.
//
// Nothing here waits for the process, so that it can neither slow nor stop the training: it leads a session
// of its own at the lowest priority, holds no descriptor of this one, and whether it works is not looked at.
#pragma once

#include <filesystem>

#include "trainer/run/run_log.h"

namespace plural::trainer {

// launch/plural of the project that this program was built in; "" where there is none.
std::filesystem::path TrackProgram();

// Starts `program track RUN --follow`, whose output is appended to RUN/log/track.log. One that cannot be
// started is a warning.
void StartTracker(const std::filesystem::path& program, const std::filesystem::path& run, RunLog& log);

}  // namespace plural::trainer
