#include "trainer/run/profile.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/profiler_kineto.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <map>
#include <set>
#include <string_view>

#include "dist/agreement.h"
#include "trainer/base/error.h"
#include "trainer/base/file_io.h"
#include "trainer/ops/multiply.h"
#include "trainer/ops/part_scope.h"
#include "trainer/plan/model_flops.h"

namespace plural::trainer {
namespace {

namespace recorder = torch::autograd::profiler;

constexpr const char* kOther = "other";

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

std::string FileStem(int rank) {
  char name[32];
  std::snprintf(name, sizeof(name), "rank-%05d", rank);
  return name;
}

const char* Meaning(const std::string& part) {
  static const std::map<std::string, const char*> meanings = {
      {"linear", "matrix multiplies of the linear layers"},
      {"attention", "attention"},
      {"head", "vocabulary head and its loss"},
      {"lora", "LoRA"},
      {"norm", "norms, activations, rotary embedding"},
      {"optimizer", "optimizer"},
      {"waiting", "waiting for other ranks (reduction)"},
      {"data", "waiting for data, batches to tensors"},
      {kOther, "other"}};
  return meanings.at(part);
}

std::string Line(const char* name, double share, double milliseconds, double multiplies) {
  char text[160];
  std::snprintf(text, sizeof(text), "  %-40s %7.2f %14.2f %22.1f\n", name, 100.0 * share, milliseconds,
                100.0 * multiplies);
  return text;
}

std::string Table(const TimeByPart& time, double flops, double peak_flops_per_second) {
  const auto steps = static_cast<double>(time.steps);
  char text[400];
  std::snprintf(text, sizeof(text), "profile of %lld steps, %.3f s per step, %d compute threads per rank\n",
                static_cast<long long>(time.steps), time.seconds / steps, at::get_num_threads());
  std::string table = text;
  std::snprintf(text, sizeof(text), "  %-40s %7s %14s %22s\n", "part", "share %", "ms per step",
                "of it multiplies*, %");
  table += text;
  double multiply_seconds = 0.0;
  for (const TimeByPart::Row& row : time.rows) {
    table += Line(Meaning(row.part), row.seconds / time.seconds, 1e3 * row.seconds / steps,
                  row.seconds > 0.0 ? row.multiply_seconds / row.seconds : 0.0);
    multiply_seconds += row.multiply_seconds;
  }
  table += Line("together", 1.0, 1e3 * time.seconds / steps, multiply_seconds / time.seconds);
  const double flops_per_second = flops / time.seconds;
  std::snprintf(
      text, sizeof(text),
      "  model FLOPs %.4g GFLOP a step, %.1f GFLOP/s; multiplies of this machine, dtype and "
      "threads %.1f GFLOP/s: utilisation %.1f %%\n  * of whole matrices; those of attention's tiles "
      "are not counted\n",
      1e-9 * flops / steps, 1e-9 * flops_per_second, 1e-9 * peak_flops_per_second,
      100.0 * flops_per_second / peak_flops_per_second);
  return table + text;
}

}  // namespace

TimeByPart AddUpParts(std::vector<RecordedEvent> events) {
  // Parents before children: by begin, the longer one first.
  std::stable_sort(events.begin(), events.end(), [](const RecordedEvent& a, const RecordedEvent& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end > b.end;
  });
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
    time.rows.push_back({other ? kOther : kPartNames[part], 1e-9 * static_cast<double>(sums[part].all),
                         1e-9 * static_cast<double>(sums[part].multiply)});
    time.seconds += time.rows.back().seconds;
  }
  std::stable_sort(time.rows.begin(), time.rows.end() - 1,
                   [](const auto& a, const auto& b) { return a.seconds > b.seconds; });
  return time;
}

double MeasureMultiplyPeak(at::ScalarType dtype, at::Device device) {
  const c10::AutoGradMode no_grad(false);
  const auto options = at::TensorOptions().dtype(dtype).device(device);
  constexpr double kSecondsPerSize = 0.3;
  // Without bf16 instructions one product of the largest size takes a minute: three runs tell enough there,
  // and a size eight times as dear is left out.
  const double most_seconds = device.is_cuda() ? std::numeric_limits<double>::infinity() : 3.0;
  const std::vector<std::int64_t> sizes =
      device.is_cuda() ? std::vector<std::int64_t>{4096, 8192} : std::vector<std::int64_t>{512, 1024, 2048};
  double best = 0.0;
  for (const std::int64_t size : sizes) {
    const at::Tensor x = at::empty({size, size}, options).fill_(0.5);
    const at::Tensor weight = at::empty({size, size}, options).fill_(0.25);
    const double flops = 2.0 * static_cast<double>(size) * static_cast<double>(size * size);
    const auto begin = std::chrono::steady_clock::now();
    double spent = 0.0;
    // The first of each way to multiply is a warm-up; reading one value waits for a GPU.
    for (int run = 0; (run < 6 && (run < 3 || spent < most_seconds)) || spent < kSecondsPerSize; ++run) {
      const auto start = std::chrono::steady_clock::now();
      const at::Tensor product = run % 2 == 0 ? MultiplyTransposed(x, weight) : Multiply(x, weight);
      if (device.is_cuda()) product.select(0, 0).select(0, 0).item();
      const auto stop = std::chrono::steady_clock::now();
      if (run > 1) best = std::max(best, flops / std::chrono::duration<double>(stop - start).count());
      spent = std::chrono::duration<double>(stop - begin).count();
    }
    if (spent >= most_seconds) break;
  }
  return best;
}

Profile::Profile(const Settings& settings, const Decoder& model, const dist::World& world,
                 dist::Collectives& collectives)
    : settings_(settings), model_(model), world_(world), collectives_(collectives) {
  if (settings_.enabled) {
    // The recorder's own log would call a machine without a GPU an error. Read when it starts.
    setenv("KINETO_LOG_LEVEL", "99", /*overwrite=*/0);
    report_ = "profile: the run ended before step " + std::to_string(settings_.after + 1) +
              " of this start; lower profile.after (" + std::to_string(settings_.after) + ")";
  }
}

// The recorder belongs to the thread: it must not outlive what it records.
Profile::~Profile() {
  if (recording_) recorder::disableProfiler();
}

void Profile::BeforeStep() {
  if (settings_.enabled && steps_++ == settings_.after) {
    std::set<recorder::ActivityType> activities = {recorder::ActivityType::CPU};
    if (model_.Device().is_cuda()) activities.insert(recorder::ActivityType::CUDA);
    const recorder::ProfilerConfig config(recorder::ProfilerState::KINETO);
    recorder::prepareProfiler(config, activities);
    recorder::enableProfiler(config, activities);
    recording_ = true;
  }
}

void Profile::AfterStep(const StepBatch& batch) {
  if (!recording_) return;
  for (const data::RowPass& pass : batch.passes) {
    flops_ += ModelFlops(model_.Config(), model_.Adapter(), pass);
  }
  if (steps_ == settings_.after + settings_.steps) Finish();
}

void Profile::Finish() {
  if (!recording_) return;
  recording_ = false;
  const auto result = recorder::disableProfiler();
  std::vector<RecordedEvent> events;
  std::uint64_t thread = 0;
  for (const auto& event : result->events()) {
    if (event.name() == kPartNames[static_cast<std::size_t>(Part::kStep)]) thread = event.startThreadId();
  }
  for (const auto& event : result->events()) {
    if (event.deviceType() != c10::DeviceType::CPU || event.startThreadId() != thread) continue;
    events.push_back(
        {event.name(), static_cast<std::int64_t>(event.startNs()), static_cast<std::int64_t>(event.endNs())});
  }
  // Together, as in the steps: ranks of one machine share its memory and its clock.
  collectives_.Barrier();
  const double peak = MeasureMultiplyPeak(model_.DType(), model_.Device());
  report_ = Table(AddUpParts(std::move(events)), flops_, peak);
  OnEveryRank(world_, collectives_, [&] {
    std::error_code error;
    std::filesystem::create_directories(settings_.folder, error);
    const std::filesystem::path trace = settings_.folder / (FileStem(world_.Rank()) + ".json");
    // The recorder says nothing when it cannot write.
    WriteFileDurably(trace, "");
    result->save(trace.string());
    WriteFileDurably(settings_.folder / (FileStem(world_.Rank()) + ".txt"), report_);
  });
  report_ += "  trace and table of each rank: " + settings_.folder.string();
}

}  // namespace plural::trainer
