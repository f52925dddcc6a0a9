// The version that `plural --version` prints and checkpoints record. Thread rule: pure.
#pragma once

namespace plural {

const char* Version();  // "0.1.0"

}  // namespace plural
