// Where the time of recorded steps went, from the recorder's events.
//
// Owns: which part of the step an instant of the host, or a kernel of a GPU, belongs to. Does not own: the
// recorder (profile.h), the scopes (ops/part_scope.h). Thread rule: pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace plural::trainer {

// The times of one thread of the host.
struct TimeByPart {
  struct Row {
    std::string part;  // as in ops/part_scope.h; "other" for what none claims
    double seconds = 0.0;
    double multiply_seconds = 0.0;  // of these, in matrix multiplies
  };
  std::vector<Row> rows;  // largest first, "other" last; together they are `seconds`
  double seconds = 0.0;
  std::int64_t steps = 0;
};

// An event of the recorder on the host, times in ns.
struct RecordedEvent {
  std::string name;
  std::int64_t begin = 0, end = 0;
  std::uint64_t thread = 0;
  std::uint64_t id = 0;  // the recorder's correlation id; 0: none
};

// Events of one thread that nest. Only what lies inside a "step" counts; every instant belongs to the
// innermost part around it.
TimeByPart AddUpParts(std::vector<RecordedEvent> events);

// What ran on the GPU: a kernel, a copy or a fill.
struct DeviceEvent {
  std::string name;
  std::int64_t nanoseconds = 0;
  std::uint64_t launched_by = 0;  // RecordedEvent::id; 0: not known
};

struct DeviceTime {
  struct Row {
    std::string name;
    double seconds = 0.0;
    std::int64_t count = 0;
  };
  std::vector<Row> parts;    // largest first, "other" last; together they are `seconds`
  std::vector<Row> kernels;  // by name, largest first
  double seconds = 0.0;      // sums of all: kernels that run side by side count twice
};

// Each kernel belongs to the innermost part around the operator that launched it, on whichever thread:
// backward runs on a thread of its own, outside of any "step". What no known operator launched is "other".
DeviceTime AddUpDevice(std::vector<RecordedEvent> host, const std::vector<DeviceEvent>& device);

}  // namespace plural::trainer
