#include "trainer/state/replicas.h"

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "data/sha256.h"
#include "dist/agreement.h"
#include "trainer/base/error.h"

namespace plural::trainer {
namespace {

// The name of the first parameter or moment that is not the same on all ranks; moments of shards have no
// second copy. COLLECTIVE.
std::string FirstDifference(const TrainState& state, dist::Collectives& collectives) {
  std::vector<dist::NamedTensor> tensors = state.parameters.Tensors();
  if (!state.shards) {
    for (auto& moment : OptimizerTensors(state)) tensors.push_back(std::move(moment));
  }
  std::string hashes;
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor bytes = tensor.detach().cpu().contiguous();
    data::Sha256 hash;
    hash.Update(bytes.const_data_ptr(), bytes.nbytes());
    hashes += hash.Hex();
  }
  const std::size_t size = hashes.size() / std::max<std::size_t>(1, tensors.size());
  const std::vector<std::string> all = collectives.AllGather(hashes);
  for (std::size_t t = 0; t < tensors.size(); ++t) {
    for (const std::string& other : all) {
      if (other.compare(t * size, size, all.front(), t * size, size) != 0) return tensors[t].name;
    }
  }
  return "what lies between the tensors";
}

}  // namespace

std::string RequireSameReplicas(const TrainState& state, const dist::World& world,
                                dist::Collectives& collectives) {
  std::string hash = ReplicaHash(state);
  const std::vector<int> odd = dist::OddRanks(collectives.AllGather(hash));
  if (!odd.empty()) {
    const std::string where = FirstDifference(state, collectives);
    const bool majority = 2 * odd.size() < static_cast<std::size_t>(world.Size());
    const std::string whose =
        majority ? "parameters or moments of rank " + dist::JoinRanks(odd) + " differ from the other ranks'"
                 : "parameters or moments differ between ranks, and too few are alike to "
                   "tell whose are wrong (rank " +
                       dist::JoinRanks(odd) + " or the others)";
    FailTogether(
        world, collectives,
        ExitError(ExitCode::kReplicasDiffer,
                  "step " + std::to_string(state.position.step) + ": " + whose + ", first in '" + where +
                      "'; no checkpoint of it was written. Suspect the memory or the processor of " +
                      (majority ? "that machine" : "one of the machines") +
                      "; start again to go on from the last one"));
  }
  return hash;
}

void RequireFinite(const TrainState& state, const dist::World& world, dist::Collectives& collectives) {
  // Every rank holds the same numbers and comes to the same end; of shards the first place of all ranks
  // counts.
  std::string name = NotFinite(state);
  if (state.shards) {
    constexpr double kNowhere = -std::numeric_limits<double>::infinity();
    const auto place = FirstNotFinite(state);
    double first = place ? -static_cast<double>(*place) : kNowhere;
    collectives.AllReduceMax(std::span<double>(&first, 1));
    const auto& spans = state.parameters.Spans();
    name = first == kNowhere ? "" : spans[static_cast<std::size_t>(-first) % spans.size()].name;
  }
  if (name.empty()) return;
  FailTogether(world, collectives,
               ExitError(ExitCode::kDiverged,
                         "step " + std::to_string(state.position.step) + ": '" + name +
                             "' or a moment of it is not finite after the update; nothing of it was written, "
                             "the last checkpoint is untouched. Lower optimizer.lr, set optimizer.clip_norm "
                             "or raise optimizer.eps"));
}

void BroadcastState(TrainState& state, dist::Collectives& collectives) {
  nlohmann::json json = StateToJson(state);
  std::string text = json.dump();
  collectives.Broadcast(text, 0);
  json = nlohmann::json::parse(text);
  StateFromJson(json, "state of rank 0", state);
  collectives.Broadcast(state.parameters.Values(), 0);
  if (state.shards) return;
  collectives.Broadcast(state.optimizer.FirstMoment(), 0);
  collectives.Broadcast(state.optimizer.SecondMoment(), 0);
}

}  // namespace plural::trainer
