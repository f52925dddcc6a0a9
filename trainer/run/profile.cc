#include "trainer/run/profile.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/core/GradMode.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <kineto/ActivityType.h>
#include <torch/csrc/autograd/profiler_kineto.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "dist/agreement.h"
#include "trainer/base/error.h"
#include "trainer/base/file_io.h"
#include "trainer/model/random_weights.h"
#include "trainer/ops/multiply.h"
#include "trainer/ops/part_scope.h"
#include "trainer/plan/model_flops.h"
#include "trainer/run/time_by_part.h"

namespace plural::trainer {
namespace {

namespace recorder = torch::autograd::profiler;

constexpr const char* kOther = "other";

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

// `timed`: the steps whose speed is held against that of multiplies.
std::string Table(const TimeByPart& time, const char* timed, double flops_per_step, double flops_per_second,
                  double peak_flops_per_second) {
  const auto steps = static_cast<double>(time.steps);
  char text[500];
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
  std::snprintf(text, sizeof(text),
                "  model FLOPs %.4g GFLOP a step, %.1f GFLOP/s; multiplies of this machine, dtype and "
                "threads %.1f GFLOP/s: utilisation %.1f %% (%s)\n  * of whole matrices; those of attention's "
                "tiles are not counted\n",
                1e-9 * flops_per_step, 1e-9 * flops_per_second, 1e-9 * peak_flops_per_second,
                100.0 * flops_per_second / peak_flops_per_second, timed);
  return table + text;
}

std::string DeviceTable(const DeviceTime& time, std::int64_t steps) {
  constexpr std::size_t kKernels = 10;
  if (time.seconds == 0.0) return "";
  std::string table = "  on the GPU, by the part that launched it\n";
  char text[160];
  const auto line = [&](const char* name, const DeviceTime::Row& row) {
    std::snprintf(text, sizeof(text), "  %-40.40s %7.2f %14.2f %12lld launches\n", name,
                  100.0 * row.seconds / time.seconds, 1e3 * row.seconds / static_cast<double>(steps),
                  static_cast<long long>(row.count / steps));
    table += text;
  };
  for (const DeviceTime::Row& row : time.parts) line(Meaning(row.name), row);
  std::snprintf(text, sizeof(text), "  the %zu kernels that take most of it, of %zu\n",
                std::min(kKernels, time.kernels.size()), time.kernels.size());
  table += text;
  for (std::size_t k = 0; k < std::min(kKernels, time.kernels.size()); ++k) {
    line(time.kernels[k].name.c_str(), time.kernels[k]);
  }
  return table;
}

// Kernels, copies and fills; the recorder also lists scopes of the host as if they ran on the GPU.
bool RunsOnGpu(const recorder::KinetoEvent& event) {
  using libkineto::ActivityType;
  const auto type = static_cast<ActivityType>(event.activityType());
  return type == ActivityType::CONCURRENT_KERNEL || type == ActivityType::GPU_MEMCPY ||
         type == ActivityType::GPU_MEMSET;
}

// `product` makes one; the first ones, which choose and load a kernel, do not count.
template <class Product>
double FlopsPerSecond(const Product& product, double flops, at::Device device, double seconds_on_cpu) {
  const auto now = [] { return std::chrono::steady_clock::now(); };
  const auto since = [&](auto start) { return std::chrono::duration<double>(now() - start).count(); };
  // Reading one value waits for a GPU, where products are only queued.
  const auto finish = [&](const at::Tensor& made) {
    if (device.is_cuda()) made.select(0, 0).select(0, 0).item();
  };
  const bool cuda = device.is_cuda();
  for (int run = 0; run < (cuda ? 3 : 1); ++run) finish(product());
  const auto start = now();
  int runs = 0;
  at::Tensor last;
  do {
    last = product();
    ++runs;
  } while (runs < 10 && (cuda || since(start) < seconds_on_cpu));
  finish(last);
  return runs * flops / since(start);
}

}  // namespace

double MeasureMultiply(std::int64_t size, at::ScalarType dtype, at::Device device, double seconds_on_cpu) {
  constexpr std::int64_t kDrawnRows = 64;
  const c10::AutoGradMode no_grad(false);
  const auto draw = [&](std::uint64_t key) {
    const at::Tensor rows = at::empty({kDrawnRows, size}, at::kFloat);
    FillNormal(rows, 1.0, key);
    return rows.to(device, dtype).repeat({size / kDrawnRows, 1});
  };
  const at::Tensor x = draw(1), weight = draw(2);
  const double flops = 2.0 * static_cast<double>(size) * static_cast<double>(size * size);
  const auto speed = [&](const auto& product) {
    return FlopsPerSecond(product, flops, device, seconds_on_cpu);
  };
  return std::max(speed([&] { return MultiplyTransposed(x, weight); }),
                  speed([&] { return Multiply(x, weight); }));
}

double MeasureMultiplyPeak(at::ScalarType dtype, at::Device device) {
  // Without bf16 instructions one product of the largest size takes a minute: a size eight times as dear is
  // left out there.
  constexpr double kMostSecondsOnCpu = 3.0;
  const std::vector<std::int64_t> sizes =
      device.is_cuda() ? std::vector<std::int64_t>{4096, 8192} : std::vector<std::int64_t>{512, 1024, 2048};
  double best = 0.0;
  for (const std::int64_t size : sizes) {
    const auto begin = std::chrono::steady_clock::now();
    best = std::max(best, MeasureMultiply(size, dtype, device, /*seconds_on_cpu=*/0.5));
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - begin;
    if (!device.is_cuda() && spent.count() >= kMostSecondsOnCpu) break;
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
  step_begin_ = std::chrono::steady_clock::now();
}

void Profile::AfterStep(const StepBatch& batch) {
  if (!settings_.enabled || (!recording_ && steps_ > settings_.after)) return;
  const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - step_begin_;
  if (recording_ || steps_ > 1) {
    Timed& timed = recording_ ? recorded_ : unrecorded_;
    ++timed.steps;
    timed.seconds += spent.count();
    for (const data::RowPass& pass : batch.passes) {
      timed.flops += ModelFlops(model_.Config(), model_.Adapter(), pass);
    }
  }
  if (recording_ && steps_ == settings_.after + settings_.steps) Finish();
}

void Profile::Finish() {
  if (!recording_) return;
  recording_ = false;
  if (const at::Device on = model_.Device(); on.is_cuda()) {  // the last update may still be under way
    c10::impl::VirtualGuardImpl(on.type()).synchronizeDevice(on.index());
  }
  const auto result = recorder::disableProfiler();
  std::vector<RecordedEvent> host;
  std::vector<DeviceEvent> device;
  std::uint64_t thread = 0;
  for (const auto& event : result->events()) {
    if (RunsOnGpu(event)) {
      device.push_back(
          {event.name(), static_cast<std::int64_t>(event.durationNs()), event.linkedCorrelationId()});
    } else if (event.deviceType() == c10::DeviceType::CPU) {
      // CUDA's own calls count their ids apart from operators.
      const bool is_operator =
          event.activityType() == static_cast<std::uint8_t>(libkineto::ActivityType::CPU_OP);
      host.push_back({event.name(), static_cast<std::int64_t>(event.startNs()),
                      static_cast<std::int64_t>(event.endNs()), event.startThreadId(),
                      is_operator ? event.correlationId() : 0});
      if (host.back().name == kPartNames[static_cast<std::size_t>(Part::kStep)]) thread = host.back().thread;
    }
  }
  std::vector<RecordedEvent> own;
  std::copy_if(host.begin(), host.end(), std::back_inserter(own),
               [thread](const RecordedEvent& event) { return event.thread == thread; });
  // Together, as in the steps: ranks of one machine share its memory and its clock.
  collectives_.Barrier();
  const double peak = MeasureMultiplyPeak(model_.DType(), model_.Device());
  const TimeByPart parts = AddUpParts(std::move(own));
  // Recording takes time of its own, on a GPU more than half of a step's.
  const bool unrecorded = unrecorded_.steps > 0;
  const Timed& timed = unrecorded ? unrecorded_ : recorded_;
  const std::string which =
      unrecorded ? "speed of the " + std::to_string(timed.steps) + " steps before, not recorded"
                 : "speed while recording; profile.after of 2 or more takes steps before";
  report_ = Table(parts, which.c_str(), recorded_.flops / static_cast<double>(recorded_.steps),
                  timed.flops / timed.seconds, peak) +
            DeviceTable(AddUpDevice(std::move(host), device), parts.steps);
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
