// Failures: what an exception means to the user and to the batch script.
//
// Owns: the way from any exception to exit code and text, and the form of the error report. Does not own:
// catching and ending the job (main.cc). Thread rule: pure functions.
#pragma once

#include <exception>
#include <string>

#include "trainer/base/error.h"

namespace plural::trainer {

struct Failure {
  ExitCode code = ExitCode::kInternal;
  std::string what;  // one line, or one line per problem of a recipe
};

// `error` is not null.
Failure DescribeFailure(const std::exception_ptr& error);

// "plural: error: WHAT [exit 65, rank 1, phase train]"; further lines of WHAT follow. `rank` < 0: one
// process, not named. `phase` may be empty.
std::string FormatFailure(const Failure& failure, int rank, const std::string& phase);

}  // namespace plural::trainer
