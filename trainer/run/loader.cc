#include "trainer/run/loader.h"

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <iterator>
#include <mutex>
#include <optional>
#include <span>
#include <stdexcept>
#include <thread>
#include <utility>

#include "data/error.h"
#include "trainer/plan/predict_cost.h"

namespace plural::trainer {
namespace {

// Makes one rank's batches. All HDF5 calls of the loader happen in here, in the reader thread.
class BatchMaker {
 public:
  BatchMaker(data::Corpus corpus, const Loader::Settings& settings)
      : corpus_(std::move(corpus)),
        settings_(settings),
        plan_(corpus_.Info().groups, settings.plan),
        fingerprint_(corpus_.Fingerprint()) {}

  // `cancelled` is asked between groups; when it says so the batch is given up.
  template <class Cancelled>
  std::optional<StepBatch> Make(std::int64_t step, const Cancelled& cancelled) {
    StepBatch batch;
    batch.step = step;
    batch.epoch = plan_.Epoch(step);
    if (batch.epoch != checked_epoch_) {
      RequireUnchanged();
      checked_epoch_ = batch.epoch;
    }
    // Every rank computes the whole assignment and takes its own part.
    const std::vector<std::int64_t> groups = plan_.StepGroups(step);
    std::vector<double> costs;
    for (const std::int64_t group : groups) {
      costs.push_back(
          PredictCost(corpus_.Lengths(group), *settings_.method, settings_.label, settings_.pack.cost));
    }
    const auto assignment = settings_.apart ? data::AssignNeighbours(costs, settings_.ranks)
                                            : data::AssignToRanks(costs, settings_.ranks);
    batch.groups_in_step = static_cast<std::int64_t>(groups.size());
    batch.predicted_balance = data::Balance(costs, assignment);
    for (const int index : assignment[static_cast<std::size_t>(settings_.rank)]) {
      if (cancelled()) return std::nullopt;
      batch.groups.push_back(
          Label(*settings_.method, corpus_.Read(groups[index]), settings_.label, batch.epoch));
    }
    const double scale = 1.0 / static_cast<double>(batch.groups_in_step);
    if (!settings_.apart) {
      batch.passes = data::PackGroups(batch.groups, settings_.pack, scale);
      return batch;
    }
    for (std::size_t i = 0; i < batch.groups.size(); ++i) {
      std::vector<data::RowPass> passes =
          data::PackGroups(std::span(batch.groups).subspan(i, 1), settings_.pack, scale);
      batch.apart.push_back({assignment[static_cast<std::size_t>(settings_.rank)][i], passes.size()});
      std::move(passes.begin(), passes.end(), std::back_inserter(batch.passes));
    }
    return batch;
  }

 private:
  void RequireUnchanged() const {
    const std::string found = corpus_.Fingerprint();
    if (found != fingerprint_) {
      throw data::DataError(corpus_.Path().string() + ": changed during the run (size:mtime_ns was " +
                            fingerprint_ + ", is " + found +
                            "); a corpus must stay as it is, start again with the old file");
    }
  }

  data::Corpus corpus_;
  Loader::Settings settings_;
  data::BatchPlan plan_;
  std::string fingerprint_;
  std::int64_t checked_epoch_ = -1;
};

}  // namespace

// The reader and the trainer share one slot. The reader starts on step t + 1 when step t is taken out of
// the slot, and waits while it is full: one step trains, one is made or waits, none is further ahead.
struct Loader::Impl {
  Impl(data::Corpus corpus, const Settings& loader_settings)
      : settings(loader_settings),
        next_step(loader_settings.first_step),
        reader([this, maker = BatchMaker(std::move(corpus), loader_settings)]() mutable { Run(maker); }) {}

  ~Impl() {
    {
      const std::lock_guard lock(mutex);
      stopping = true;
    }
    changed.notify_all();
    reader.join();
  }

  void Run(BatchMaker& maker) {
    try {
      for (std::int64_t step = settings.first_step; step < settings.last_step; ++step) {
        auto batch = maker.Make(step, [this] {
          const std::lock_guard lock(mutex);
          return stopping;
        });
        if (!batch) return;
        std::unique_lock lock(mutex);
        slot = std::move(batch);
        changed.notify_all();
        changed.wait(lock, [this] { return stopping || !slot; });
        if (stopping) return;
      }
    } catch (...) {
      const std::lock_guard lock(mutex);
      failure = std::current_exception();
      changed.notify_all();
    }
  }

  const Settings settings;
  std::int64_t next_step;  // of Next's thread
  std::mutex mutex;
  std::condition_variable changed;
  // Guarded by the mutex.
  std::optional<StepBatch> slot;
  std::exception_ptr failure;
  bool stopping = false;

  std::thread reader;  // last: it starts when all of the above exists
};

Loader::Loader(data::Corpus corpus, const Settings& settings) {
  if (settings.rank < 0 || settings.rank >= settings.ranks || settings.first_step < 0) {
    throw std::invalid_argument("Loader: rank outside [0, ranks) or first_step < 0");
  }
  impl_ = std::make_unique<Impl>(std::move(corpus), settings);
}

Loader::~Loader() = default;

StepBatch Loader::Next() {
  Impl& loader = *impl_;
  if (loader.next_step >= loader.settings.last_step) throw std::logic_error("Loader::Next: no step is left");
  std::unique_lock lock(loader.mutex);
  loader.changed.wait(lock, [&] { return loader.slot || loader.failure; });
  // A batch that was made before the failure comes first.
  if (!loader.slot) std::rethrow_exception(loader.failure);
  StepBatch batch = std::move(*loader.slot);
  loader.slot.reset();
  ++loader.next_step;
  loader.changed.notify_all();
  return batch;
}

}  // namespace plural::trainer
