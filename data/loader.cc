#include "data/loader.h"

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <thread>
#include <utility>

#include "data/error.h"

namespace plural::data {
namespace {

// Makes one rank's batches. All HDF5 calls of the loader happen in here, in the reader thread.
class BatchMaker {
 public:
  BatchMaker(Corpus corpus, const Loader::Settings& settings)
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
      costs.push_back(PredictCost(corpus_.Lengths(group), settings_.label, settings_.pack.cost));
    }
    const auto assignment = AssignToRanks(costs, settings_.ranks);
    batch.groups_in_step = static_cast<std::int64_t>(groups.size());
    batch.predicted_balance = Balance(costs, assignment);
    for (const int index : assignment[static_cast<std::size_t>(settings_.rank)]) {
      if (cancelled()) return std::nullopt;
      batch.groups.push_back(Label(corpus_.Read(groups[index]), settings_.label, batch.epoch));
    }
    batch.passes = PackGroups(batch.groups, settings_.pack, 1.0 / static_cast<double>(batch.groups_in_step));
    return batch;
  }

 private:
  void RequireUnchanged() const {
    const std::string found = corpus_.Fingerprint();
    if (found != fingerprint_) {
      throw DataError(corpus_.Path().string() + ": changed during the run (size:mtime_ns was " +
                      fingerprint_ + ", is " + found +
                      "); a corpus must stay as it is, start again with the old file");
    }
  }

  Corpus corpus_;
  Loader::Settings settings_;
  BatchPlan plan_;
  std::string fingerprint_;
  std::int64_t checked_epoch_ = -1;
};

}  // namespace

// The reader and the trainer share one slot. The reader starts on step t + 1 when step t is taken out of
// the slot, and waits while it is full: one step trains, one is made or waits, none is further ahead.
struct Loader::Impl {
  Impl(Corpus corpus, const Settings& loader_settings)
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

Loader::Loader(Corpus corpus, const Settings& settings) {
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

namespace {

// Cost of `sequences` sequences that share `prompt` rows and have `body` rows more. A group too large for one
// tree, or cheaper in several, repeats its prompt in each. A row of the body sees the prompt and, of the
// body's sequences, on the average half of its own.
double CostOfTrees(std::int64_t prompt_rows, double body, double sequences, const CostModel& cost) {
  const auto prompt = static_cast<double>(prompt_rows);
  double trees = 1.0;
  if (const double prompt_cost = cost.Cost(prompt_rows); prompt_cost > 0.0) {
    // d/dn [n * Cost(prompt + body / n)] = 0, with Cost(x) = per_row * x + per_row_pair * x^2.
    trees = std::round(body * std::sqrt(cost.per_row_pair / prompt_cost));
  }
  if (cost.max_rows > prompt_rows) {
    trees = std::max(trees, std::ceil(body / static_cast<double>(cost.max_rows - prompt_rows)));
  }
  trees = std::clamp(trees, 1.0, std::max(1.0, sequences));  // a tree holds at least one sequence
  const double own = body / std::max(1.0, sequences) / 2.0;
  const double visible = trees * prompt * prompt / 2.0 + body * (prompt + own);
  return trees * cost.Cost(static_cast<std::int64_t>(std::ceil(prompt + body / trees))) +
         cost.per_visible_pair * visible;
}

}  // namespace

double PredictCost(const Corpus::GroupLengths& lengths, const LabelSettings& label, const CostModel& cost) {
  const auto tail = static_cast<double>(lengths.longest_tail);
  const bool takes_n =
      label.method == Method::kOtmft || label.method == Method::kPeft || label.method == Method::kCvf;
  auto used = static_cast<std::int64_t>(lengths.responses.size());
  if (label.method == Method::kOtoft) {
    used = std::min<std::int64_t>(used, 1);
  } else if (takes_n && label.responses > 0) {
    used = std::min<std::int64_t>(used, label.responses);
  }
  const auto found = static_cast<std::int64_t>(lengths.responses.size());
  const std::int64_t candidates = label.selection == Selection::kAligned ? found : used;
  const auto candidate_tokens = static_cast<double>(
      std::accumulate(lengths.responses.begin(), lengths.responses.begin() + candidates, std::int64_t{0}));
  const double share = candidates > 0 ? static_cast<double>(used) / static_cast<double>(candidates) : 0.0;
  const double response_tokens = candidate_tokens * share;
  // The last token of a response is predicted but never fed: one row less.
  const double fed = std::max(0.0, response_tokens - static_cast<double>(used));

  auto sequences = static_cast<double>(used);
  double tails = tail;
  double responses = fed;
  double recognition = 0.0;
  if (label.method == Method::kPeft && used > 0) {
    // Every number has its own tail; below it stand its positive and its share of the negatives.
    const auto numbers = static_cast<double>(used);
    double negatives = numbers * (numbers - 1.0);
    if (label.max_negatives > 0) negatives = std::min<double>(negatives, label.max_negatives);
    sequences = numbers + negatives;
    tails = numbers * tail;
    responses = fed * sequences / numbers;
  } else if (label.method == Method::kCvf) {
    // To recognise, all tokens of a response and the query are fed; below each latent stand the responses.
    recognition = CostOfTrees(lengths.prompt, tail + response_tokens + sequences, sequences, cost);
    const double branches = std::max(label.latent_branches, 1);
    responses = branches * fed + (label.latent_branches > 0 ? branches : sequences);
    sequences *= branches;
  }
  return recognition + CostOfTrees(lengths.prompt, tails + responses, sequences, cost);
}

}  // namespace plural::data
