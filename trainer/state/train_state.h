// The train state: everything that decides how a run continues, in one struct.
//
// Owns: the trainable values, the optimizer, the position in the data, and the inputs to which the
// run is bound. Everything else (caches, timings, the reader's look-ahead) may be lost at any
// moment without changing a later step. Does not own: files. Thread rule: one thread.
//
// Random states are not needed: every draw is a function of the seed and of counters kept below.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "dist/flat_parameters.h"
#include "dist/shards.h"
#include "trainer/method/sums.h"
#include "trainer/state/optimizer.h"
#include "trainer/state/spike_window.h"
#include "trainer/state/validation_record.h"

namespace plural::trainer {

struct Position {
  std::int64_t step = 0;             // optimizer steps done
  std::int64_t epoch = 0;            // of the next step
  std::int64_t consumed_groups = 0;  // over all epochs
  bool stopped_early = false;        // the early-stop rule has ended the run at `step`
  Sums epoch_sums;  // of the groups of the epoch so far, each measured before its step (EpochSums)
  std::int64_t metrics_bytes = 0;  // size of metrics.jsonl after the steps done
  bool validation_owed = false;    // a stop came before the validation that `step` had to be followed by
};

// The inputs to which the values belong. A resume with other inputs is refused.
struct Identity {
  std::uint64_t seed = 0;
  std::string recipe_sha256;   // of the keys that decide the run (run_folder.h)
  std::string corpus;          // SHA-256 of the corpus, or its fingerprint where it has no sidecar
  std::string validation;      // the same of data.validation; "" without one
  std::string weights_sha256;  // of the base weights; "" for random ones, which the recipe decides
  std::string config_sha256;   // of the base model's config.json; "" for a model of the recipe
  std::string adapter_sha256;  // of adapter.init_from; "" without one
};

// Where the state was made, recorded for people: a resume elsewhere is reported, not refused.
struct Provenance {
  std::string version;  // of plural
  std::string mpi;
  std::string host;  // of rank 0
  std::int64_t ranks = 0;
  std::int64_t threads = 0;  // compute threads per rank
  std::int64_t restarts = 0;
};

struct TrainState {
  dist::FlatParameters parameters;
  std::optional<dist::Shards> shards;  // none: this rank has all moments
  AdamW optimizer;
  Position position;
  SpikeWindow spikes;           // empty without a guard
  ValidationRecord validation;  // empty without one that looks at it
  Identity identity;
  Provenance provenance;

  // `lr_scales` as in AdamW's constructor. `sharding`: the moments lie on several ranks (dist/shards.h).
  TrainState(std::vector<dist::NamedTensor> trainable, const AdamW::Settings& settings,
             const std::vector<double>& lr_scales = {},
             const std::optional<dist::Shards::Settings>& sharding = {})
      : parameters(std::move(trainable)),
        shards(sharding ? std::optional<dist::Shards>(std::in_place, parameters, *sharding) : std::nullopt),
        optimizer(parameters, settings, lr_scales, shards ? &*shards : nullptr) {}
};

// The place of the first parameter whose value or moment, of those here, is NaN or infinite: of values, then
// first, then second moments, each in the order of the spans. Nothing where all are finite.
std::optional<std::int64_t> FirstNotFinite(const TrainState& state);
// Its name; "" where all are finite.
std::string NotFinite(const TrainState& state);

// SHA-256 of what every rank has of its own, parameters and moments or, with shards, parameters alone: equal
// on all ranks, always.
std::string ReplicaHash(const TrainState& state);

// What state.json says beside the tensors.
struct SavedState {
  Position position;
  SpikeWindow spikes;
  ValidationRecord validation;
  Identity identity;
  Provenance provenance;
  std::int64_t updates = 0;  // of the optimizer
};

// Everything but the tensors. Numbers are exact: integers as integers, floats as C hexadecimal floats in
// strings ("0x1.8p+1").
nlohmann::json StateToJson(const TrainState& state);
// The identity within a state in JSON. Errors: as StateFromJson.
Identity IdentityFromJson(const nlohmann::json& json, const std::string& where);
// `epoch_sums`: those that the state has. Errors: ExitError(kBadData) naming `where` and the key.
SavedState SavedStateFromJson(const nlohmann::json& json, const std::string& where, Sums epoch_sums);
// Fills `state` but for the tensors. Errors: as SavedStateFromJson.
void StateFromJson(const nlohmann::json& json, const std::string& where, TrainState& state);

// The moments as tensors named like torch's: "<parameter>.exp_avg" and "<parameter>.exp_avg_sq".
inline constexpr const char* kFirstMoment = ".exp_avg";
inline constexpr const char* kSecondMoment = ".exp_avg_sq";
// Precondition: no shards.
std::vector<dist::NamedTensor> OptimizerTensors(const TrainState& state);

}  // namespace plural::trainer
