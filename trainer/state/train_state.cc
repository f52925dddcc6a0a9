#include "trainer/state/train_state.h"

#include <ATen/core/Tensor.h>

#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "data/sha256.h"
#include "trainer/base/error.h"

namespace plural::trainer {
namespace {

std::string ToHex(double value) {
  char text[64];
  std::snprintf(text, sizeof(text), "%a", value);
  return text;
}

bool FromHex(const nlohmann::json& json, double& value) {
  if (!json.is_string()) return false;
  const auto& text = json.get_ref<const std::string&>();
  char* end = nullptr;
  value = std::strtod(text.c_str(), &end);
  return !text.empty() && *end == '\0';
}

// One list of fields serves both directions, so that nothing is written that is not read.
class Writer {
 public:
  explicit Writer(nlohmann::json& json) : json_(json) {}
  void operator()(const char* key, double value) { json_[key] = ToHex(value); }
  void operator()(const char* key, const std::vector<double>& values) {
    json_[key] = nlohmann::json::array();
    for (const double value : values) json_[key].push_back(ToHex(value));
  }
  template <typename T>
  void operator()(const char* key, const T& value) {
    json_[key] = value;
  }

 private:
  nlohmann::json& json_;
};

class StateReader {
 public:
  StateReader(const nlohmann::json& json, std::string where) : json_(json), where_(std::move(where)) {
    if (!json_.is_object()) throw ExitError(ExitCode::kBadData, where_ + ": not a JSON object");
  }
  void operator()(const char* key, double& value) {
    if (!FromHex(At(key), value)) Fail(key, "a hexadecimal float in a string");
  }
  void operator()(const char* key, std::vector<double>& values) {
    values.clear();
    if (!At(key).is_array()) Fail(key, "a list of hexadecimal floats in strings");
    for (const nlohmann::json& item : At(key)) {
      if (!FromHex(item, values.emplace_back())) Fail(key, "a list of hexadecimal floats in strings");
    }
  }
  void operator()(const char* key, bool& value) {
    if (!At(key).is_boolean()) Fail(key, "true or false");
    value = At(key).get<bool>();
  }
  void operator()(const char* key, std::int64_t& value) {
    if (!At(key).is_number_integer() || At(key).get<std::int64_t>() < 0) Fail(key, "an integer >= 0");
    value = At(key).get<std::int64_t>();
  }
  void operator()(const char* key, std::uint64_t& value) {
    if (!At(key).is_number_unsigned()) Fail(key, "an integer >= 0");
    value = At(key).get<std::uint64_t>();
  }
  void operator()(const char* key, std::string& value) {
    if (!At(key).is_string()) Fail(key, "a string");
    value = At(key).get<std::string>();
  }
  const nlohmann::json& At(const char* key) {
    const auto found = json_.find(key);
    if (found == json_.end()) throw ExitError(ExitCode::kBadData, where_ + ": key '" + key + "' is missing");
    return *found;
  }

 private:
  [[noreturn]] void Fail(const char* key, const char* allowed) {
    throw ExitError(ExitCode::kBadData,
                    where_ + ": key '" + key + "' is " + At(key).dump() + "; allowed is " + allowed);
  }

  const nlohmann::json& json_;
  std::string where_;
};

template <typename Visitor, typename P>
void Visit(Visitor&& visit, P& position) requires std::is_same_v<std::remove_const_t<P>, Position> {
  visit("step", position.step);
  visit("epoch", position.epoch);
  visit("consumed_groups", position.consumed_groups);
  visit("stopped_early", position.stopped_early);
  visit("metrics_bytes", position.metrics_bytes);
}

template <typename Visitor, typename P>
void Visit(Visitor&& visit, P& pass) requires std::is_same_v<std::remove_const_t<P>, PassSums> {
  visit("groups", pass.groups);
  visit("unpenalised_groups", pass.unpenalised_groups);
  visit("loss", pass.loss);
  visit("kl_nats", pass.kl_nats);
  visit("cross_entropy_nats", pass.cross_entropy_nats);
  visit("target_entropy_nats", pass.target_entropy_nats);
  visit("target_mass", pass.target_mass);
  visit("entropy_nats", pass.entropy_nats);
}

template <typename Visitor, typename L>
void Visit(Visitor&& visit, L& latents) requires std::is_same_v<std::remove_const_t<L>, LatentSums> {
  visit("responses", latents.responses);
  visit("q", latents.q_K);
  visit("entropy_nats", latents.entropy_nats);
  visit("bow", latents.bow);
  visit("nll_spread_nats", latents.nll_spread_nats);
}

template <typename Visitor, typename I>
void Visit(Visitor&& visit, I& identity) requires std::is_same_v<std::remove_const_t<I>, Identity> {
  visit("seed", identity.seed);
  visit("recipe_sha256", identity.recipe_sha256);
  visit("corpus", identity.corpus);
  visit("weights_sha256", identity.weights_sha256);
}

template <typename Visitor, typename P>
void Visit(Visitor&& visit, P& provenance) requires std::is_same_v<std::remove_const_t<P>, Provenance> {
  visit("version", provenance.version);
  visit("mpi", provenance.mpi);
  visit("host", provenance.host);
  visit("ranks", provenance.ranks);
  visit("threads", provenance.threads);
  visit("restarts", provenance.restarts);
}

}  // namespace

std::string ReplicaHash(const TrainState& state) {
  data::Sha256 hash;
  for (const at::Tensor& tensor :
       {state.parameters.Values(), state.optimizer.FirstMoment(), state.optimizer.SecondMoment()}) {
    const at::Tensor bytes = tensor.cpu().contiguous();
    hash.Update(bytes.const_data_ptr(), bytes.nbytes());
  }
  return hash.Hex();
}

nlohmann::json StateToJson(const TrainState& state) {
  nlohmann::json json = {{"format", "plural-train-state"}, {"format_version", 1}};
  Visit(Writer(json["position"]), state.position);
  Visit(Writer(json["pass"]), state.position.pass);
  // Only where there are latents, so that checkpoints of the other methods stay readable.
  const LatentSums& latents = state.position.pass.latents;
  if (!latents.q_K.empty()) Visit(Writer(json["latents"]), latents);
  Visit(Writer(json["identity"]), state.identity);
  Visit(Writer(json["provenance"]), state.provenance);
  json["optimizer"]["updates"] = state.optimizer.Updates();
  json["replica_sha256"] = ReplicaHash(state);
  return json;
}

void StateFromJson(const nlohmann::json& json, const std::string& where, TrainState& state) {
  StateReader root(json, where);
  if (root.At("format") != "plural-train-state" || root.At("format_version") != 1) {
    throw ExitError(ExitCode::kBadData, where + ": format " + root.At("format").dump() + " version " +
                                            root.At("format_version").dump() +
                                            "; this program reads \"plural-train-state\" version 1");
  }
  Visit(StateReader(root.At("position"), where + ": position"), state.position);
  Visit(StateReader(root.At("pass"), where + ": pass"), state.position.pass);
  state.position.pass.latents = {};
  if (json.contains("latents")) {
    Visit(StateReader(root.At("latents"), where + ": latents"), state.position.pass.latents);
  }
  Visit(StateReader(root.At("identity"), where + ": identity"), state.identity);
  Visit(StateReader(root.At("provenance"), where + ": provenance"), state.provenance);
}

std::vector<dist::NamedTensor> OptimizerTensors(const TrainState& state) {
  std::vector<dist::NamedTensor> tensors;
  const auto add = [&](const at::Tensor& flat, const char* suffix) {
    for (const auto& span : state.parameters.Spans()) {
      tensors.push_back({span.name + suffix, flat.narrow(0, span.offset, span.size).view(span.shape)});
    }
  };
  add(state.optimizer.FirstMoment(), ".exp_avg");
  add(state.optimizer.SecondMoment(), ".exp_avg_sq");
  return tensors;
}

}  // namespace plural::trainer
