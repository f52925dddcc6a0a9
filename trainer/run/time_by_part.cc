#include "trainer/run/time_by_part.h"

#include <algorithm>
#include <array>
#include <map>
#include <string_view>
#include <utility>

#include "trainer/ops/part_scope.h"

namespace plural::trainer {
namespace {

constexpr const char* kOtherParts = "other";

// The recorder's names of the multiplies in use. What a library calls from within one is part of it.
bool IsMultiply(std::string_view name) {
  constexpr std::array<std::string_view, 9> kNames = {"aten::mm",
                                                      "aten::mm.out",
                                                      "aten::addmm_",
                                                      "aten::addmm",
                                                      "aten::addmm.out",
                                                      "aten::bmm",
                                                      "aten::baddbmm",
                                                      "mkldnn::_linear_pointwise",
                                                      "plural::TileMultiply"};
  return std::find(kNames.begin(), kNames.end(), name) != kNames.end();
}

// Index into kPartNames, or -1. The backward of libtorch's own attention has no scope of ours.
int PartOf(std::string_view name) {
  const auto found = std::find(kPartNames.begin(), kPartNames.end(), name);
  if (found != kPartNames.end()) return static_cast<int>(found - kPartNames.begin());
  return name.find("ScaledDotProduct") != std::string_view::npos ? static_cast<int>(Part::kAttention) : -1;
}

// Parents before children: by begin, the longer one first.
void SortByNesting(std::vector<RecordedEvent>& events) {
  std::stable_sort(events.begin(), events.end(), [](const RecordedEvent& a, const RecordedEvent& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end > b.end;
  });
}

// The part around each event that has an id, -1 where there is none.
std::map<std::uint64_t, int> PartOfEachId(std::vector<RecordedEvent> events) {
  std::map<std::uint64_t, std::vector<RecordedEvent>> threads;
  for (RecordedEvent& event : events) threads[event.thread].push_back(std::move(event));
  std::map<std::uint64_t, int> part_of;
  for (auto& [thread, own] : threads) {
    SortByNesting(own);
    std::vector<std::pair<std::int64_t, int>> open;  // end, innermost part
    for (const RecordedEvent& event : own) {
      while (!open.empty() && open.back().first <= event.begin) open.pop_back();
      const int outer = open.empty() ? -1 : open.back().second;
      const int own_part = PartOf(event.name);
      open.emplace_back(event.end, own_part < 0 ? outer : own_part);
      if (event.id != 0) part_of[event.id] = open.back().second;
    }
  }
  return part_of;
}

}  // namespace

TimeByPart AddUpParts(std::vector<RecordedEvent> events) {
  SortByNesting(events);
  struct Open {
    std::int64_t end;
    int part;  // innermost around it; -1: outside of any step
    bool multiply;
  };
  constexpr auto kStepPart = static_cast<int>(Part::kStep);
  struct Sum {
    std::int64_t all = 0, multiply = 0;
  };
  std::array<Sum, kPartNames.size()> sums;
  TimeByPart time;
  std::vector<Open> open;
  std::int64_t now = 0;
  const auto advance = [&](std::int64_t to) {
    if (!open.empty() && open.back().part >= 0) {
      Sum& sum = sums[static_cast<std::size_t>(open.back().part)];
      sum.all += to - now;
      if (open.back().multiply) sum.multiply += to - now;
    }
    now = to;
  };
  const auto close_until = [&](std::int64_t instant) {
    while (!open.empty() && open.back().end <= instant) {
      advance(open.back().end);
      open.pop_back();
    }
  };
  for (const RecordedEvent& event : events) {
    close_until(event.begin);
    advance(event.begin);
    const int outer = open.empty() ? -1 : open.back().part;
    int part = PartOf(event.name);
    if (part == kStepPart && outer < 0) ++time.steps;
    if (part < 0 || (outer < 0 && part != kStepPart)) part = outer;
    // The clocks of an event and of one inside it may differ by a tick.
    const std::int64_t end = open.empty() ? event.end : std::min(event.end, open.back().end);
    open.push_back({end, part, (!open.empty() && open.back().multiply) || IsMultiply(event.name)});
  }
  while (!open.empty()) close_until(open.back().end);

  for (std::size_t part = 0; part < sums.size(); ++part) {
    const bool other = part == static_cast<std::size_t>(kStepPart);
    time.rows.push_back({other ? kOtherParts : kPartNames[part], 1e-9 * static_cast<double>(sums[part].all),
                         1e-9 * static_cast<double>(sums[part].multiply)});
    time.seconds += time.rows.back().seconds;
  }
  std::stable_sort(time.rows.begin(), time.rows.end() - 1,
                   [](const auto& a, const auto& b) { return a.seconds > b.seconds; });
  return time;
}

DeviceTime AddUpDevice(std::vector<RecordedEvent> host, const std::vector<DeviceEvent>& device) {
  const std::map<std::uint64_t, int> part_of = PartOfEachId(std::move(host));
  constexpr auto kOtherPart = static_cast<std::size_t>(Part::kStep);
  DeviceTime time;
  std::map<std::string, DeviceTime::Row> kernels;
  for (const char* name : kPartNames) time.parts.push_back({name});
  time.parts[kOtherPart].name = kOtherParts;
  for (const DeviceEvent& event : device) {
    const double seconds = 1e-9 * static_cast<double>(event.nanoseconds);
    const auto found = part_of.find(event.launched_by);
    const bool known = event.launched_by != 0 && found != part_of.end() && found->second >= 0;
    for (DeviceTime::Row* row :
         {&time.parts[known ? static_cast<std::size_t>(found->second) : kOtherPart], &kernels[event.name]}) {
      row->seconds += seconds;
      ++row->count;
    }
    time.seconds += seconds;
  }
  const auto larger = [](const auto& a, const auto& b) { return a.seconds > b.seconds; };
  std::stable_sort(time.parts.begin(), time.parts.end() - 1, larger);
  for (auto& [name, row] : kernels) {
    row.name = name;
    time.kernels.push_back(std::move(row));
  }
  std::stable_sort(time.kernels.begin(), time.kernels.end(), larger);
  return time;
}

}  // namespace plural::trainer
