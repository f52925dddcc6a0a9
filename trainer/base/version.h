// The version that `plural --version` prints and checkpoints record.
//
// Owns: the number. Does not own: versions of files' formats, which their writers have. Thread rule: pure.
#pragma once

namespace plural {

const char* Version();  // "0.1.0"

}  // namespace plural
