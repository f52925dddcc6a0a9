// The program's version, as `plural --version` prints it and checkpoints record it. Thread rule:
// pure.
#pragma once

namespace plural {

const char* Version();  // "0.1.0"

}  // namespace plural
