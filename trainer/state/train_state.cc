#include "trainer/state/train_state.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/isfinite.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string_view>

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
  visit("validation_owed", position.validation_owed);
}

// Format version 1 keeps sums where its first methods had them: "pass" has the figures of targets
// whatever the method, "latents" those of latents once a response is recognised. Sums of later
// methods are in "sums".
constexpr const char* kCountsOfPass[] = {"groups", "unpenalised_groups"};
constexpr const char* kSumsOfPass[] = {
    "loss", "kl_nats", "cross_entropy_nats", "target_entropy_nats", "target_mass", "entropy_nats"};
constexpr std::string_view kLatents = "latents.", kPosterior = "latents.posterior.";

// True when version 1 has a place of its own for the sum, outside of "sums".
bool HasPlace(const Sums& sums, const std::string& name) {
  const auto is = [&](const char* other) { return name == other; };
  return std::ranges::any_of(kCountsOfPass, is) || std::ranges::any_of(kSumsOfPass, is) ||
         name.starts_with(kLatents) || (name == "bow" && sums.Has("latents.responses"));
}

void WriteSums(const Sums& sums, nlohmann::json& json) {
  Writer pass(json["pass"]);
  for (const char* name : kCountsOfPass) {
    pass(name, sums.Has(name) ? static_cast<std::int64_t>(sums[name]) : std::int64_t{0});
  }
  for (const char* name : kSumsOfPass) pass(name, sums.Has(name) ? sums[name] : 0.0);
  if (sums.Has("latents.responses") && sums["latents.responses"] > 0.0) {
    Writer latents(json["latents"]);
    std::vector<double> posterior;
    for (std::size_t i = 0; i < sums.Names().size(); ++i) {
      if (sums.Names()[i].starts_with(kPosterior)) posterior.push_back(sums.Values()[i]);
    }
    latents("responses", static_cast<std::int64_t>(sums["latents.responses"]));
    latents("q", posterior);
    latents("entropy_nats", sums["latents.entropy_nats"]);
    latents("bow", sums["bow"]);
    latents("nll_spread_nats", sums["latents.nll_spread_nats"]);
  }
  for (const std::string& name : sums.Names()) {
    if (HasPlace(sums, name)) continue;
    Writer later(json["sums"]);
    later(name.c_str(), sums[name]);
  }
}

void ReadSums(const nlohmann::json& json, const std::string& where, Sums& sums) {
  sums.Clear();
  StateReader root(json, where);
  StateReader pass(root.At("pass"), where + ": pass");
  for (const char* name : kCountsOfPass) {
    std::int64_t count = 0;
    pass(name, count);
    if (sums.Has(name)) sums[name] = static_cast<double>(count);
  }
  for (const char* name : kSumsOfPass) {
    double sum = 0.0;
    pass(name, sum);
    if (sums.Has(name)) sums[name] = sum;
  }
  if (sums.Has("latents.responses") && json.contains("latents")) {
    StateReader latents(root.At("latents"), where + ": latents");
    std::int64_t responses = 0;
    std::vector<double> posterior;
    latents("responses", responses);
    latents("q", posterior);
    latents("entropy_nats", sums["latents.entropy_nats"]);
    latents("bow", sums["bow"]);
    latents("nll_spread_nats", sums["latents.nll_spread_nats"]);
    sums["latents.responses"] = static_cast<double>(responses);
    for (std::size_t z = 0; z < posterior.size(); ++z) {
      const std::string name = std::string(kPosterior) + std::to_string(z + 1);
      if (!sums.Has(name)) {
        throw ExitError(ExitCode::kBadData, where + ": latents: key 'q' has " +
                                                std::to_string(posterior.size()) +
                                                " values, more than cvf.latents");
      }
      sums[name] = posterior[z];
    }
  }
  for (const std::string& name : sums.Names()) {
    if (HasPlace(sums, name)) continue;
    StateReader later(root.At("sums"), where + ": sums");
    later(name.c_str(), sums[name]);
  }
}

template <typename Visitor, typename I>
void Visit(Visitor&& visit, I& identity) requires std::is_same_v<std::remove_const_t<I>, Identity> {
  visit("seed", identity.seed);
  visit("recipe_sha256", identity.recipe_sha256);
  visit("corpus", identity.corpus);
  visit("validation", identity.validation);
  visit("weights_sha256", identity.weights_sha256);
  visit("config_sha256", identity.config_sha256);
  visit("adapter_sha256", identity.adapter_sha256);
}

template <typename Visitor, typename W>
void Visit(Visitor&& visit, W& window) requires std::is_same_v<std::remove_const_t<W>, SpikeWindow> {
  visit("losses", window.losses);
  visit("grad_norms", window.grad_norms);
  visit("skipped_steps", window.skipped_steps);
  visit("skipped_in_row", window.skipped_in_row);
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

void WriteRecord(const ValidationRecord& record, nlohmann::json& json) {
  Writer writer(json);
  writer("unlikelihood_scale", record.unlikelihood_scale);
  writer("lowered_in_row", record.lowered_in_row);
  json["best"] = nlohmann::json::object();
  for (const auto& [name, best] : record.best) {
    Writer one(json["best"][name]);
    one("value", best.value);
    one("step", best.step);
  }
}

void ReadRecord(const nlohmann::json& json, const std::string& where, ValidationRecord& record) {
  StateReader reader(json, where);
  reader("unlikelihood_scale", record.unlikelihood_scale);
  reader("lowered_in_row", record.lowered_in_row);
  bool right = record.unlikelihood_scale >= 0.0 && record.unlikelihood_scale <= 1.0;
  const nlohmann::json& best = reader.At("best");
  if (!best.is_object()) throw ExitError(ExitCode::kBadData, where + ": key 'best' is no JSON object");
  for (const auto& [name, values] : best.items()) {
    StateReader one(values, where + ": best: " + name);
    one("value", record.best[name].value);
    one("step", record.best[name].step);
    right = right && std::isfinite(record.best[name].value);
  }
  if (!right) {
    throw ExitError(ExitCode::kBadData,
                    where + ": unlikelihood_scale must be in [0, 1], and every value of best finite");
  }
}

void RequireNumbers(const SpikeWindow& window, const std::string& where) {
  const auto finite = [](double value) { return std::isfinite(value); };
  if (window.losses.size() == window.grad_norms.size() && std::ranges::all_of(window.losses, finite) &&
      std::ranges::all_of(window.grad_norms, finite)) {
    return;
  }
  throw ExitError(ExitCode::kBadData,
                  where + ": losses and grad_norms must be as many of each, and all finite");
}

}  // namespace

std::optional<std::int64_t> FirstNotFinite(const TrainState& state) {
  std::int64_t place = 0;
  // A parameter at a time, so that what is looked at needs little memory.
  const auto finite = [](const at::Tensor& flat, std::int64_t offset, std::int64_t size) {
    return at::isfinite(flat.narrow(0, offset, size)).all().item<bool>();
  };
  for (const auto& span : state.parameters.Spans()) {
    if (!finite(state.parameters.Values(), span.offset, span.size)) return place;
    ++place;
  }
  for (const at::Tensor& moment : {state.optimizer.FirstMoment(), state.optimizer.SecondMoment()}) {
    for (const auto& span : state.parameters.Spans()) {
      if (!state.shards) {
        if (!finite(moment, span.offset, span.size)) return place;
      } else {
        for (const auto& piece : state.shards->Within(span.offset, span.size)) {
          if (piece.rank == state.shards->Rank() && !finite(moment, piece.kept, piece.size)) return place;
        }
      }
      ++place;
    }
  }
  return std::nullopt;
}

std::string NotFinite(const TrainState& state) {
  const auto place = FirstNotFinite(state);
  const auto& spans = state.parameters.Spans();
  return place ? spans[static_cast<std::size_t>(*place) % spans.size()].name : "";
}

std::string ReplicaHash(const TrainState& state) {
  data::Sha256 hash;
  std::vector<at::Tensor> replicas = {state.parameters.Values()};
  if (!state.shards) {
    replicas.push_back(state.optimizer.FirstMoment());
    replicas.push_back(state.optimizer.SecondMoment());
  }
  for (const at::Tensor& tensor : replicas) {
    const at::Tensor bytes = tensor.cpu().contiguous();
    hash.Update(bytes.const_data_ptr(), bytes.nbytes());
  }
  return hash.Hex();
}

nlohmann::json StateToJson(const TrainState& state) {
  nlohmann::json json = {{"format", "plural-train-state"}, {"format_version", 1}};
  Visit(Writer(json["position"]), state.position);
  WriteSums(state.position.epoch_sums, json);
  if (!state.spikes.Empty()) Visit(Writer(json["guard"]), state.spikes);
  if (!state.validation.Empty()) WriteRecord(state.validation, json["validation"]);
  Visit(Writer(json["identity"]), state.identity);
  Visit(Writer(json["provenance"]), state.provenance);
  json["optimizer"]["updates"] = state.optimizer.Updates();
  return json;
}

Identity IdentityFromJson(const nlohmann::json& json, const std::string& where) {
  nlohmann::json found = StateReader(json, where).At("identity");
  // Checkpoints of earlier versions do not say it.
  for (const char* key : {"validation", "config_sha256", "adapter_sha256"}) {
    if (found.is_object()) found.emplace(key, "");
  }
  Identity identity;
  Visit(StateReader(found, where + ": identity"), identity);
  return identity;
}

SavedState SavedStateFromJson(const nlohmann::json& json, const std::string& where, Sums epoch_sums) {
  StateReader root(json, where);
  if (root.At("format") != "plural-train-state" || root.At("format_version") != 1) {
    throw ExitError(ExitCode::kBadData, where + ": format " + root.At("format").dump() + " version " +
                                            root.At("format_version").dump() +
                                            "; this program reads \"plural-train-state\" version 1");
  }
  SavedState saved;
  nlohmann::json position = root.At("position");
  if (position.is_object()) position.emplace("validation_owed", false);  // not in those of earlier versions
  Visit(StateReader(position, where + ": position"), saved.position);
  saved.position.epoch_sums = std::move(epoch_sums);
  ReadSums(json, where, saved.position.epoch_sums);
  if (json.contains("guard")) {  // not in those of earlier versions
    Visit(StateReader(root.At("guard"), where + ": guard"), saved.spikes);
    RequireNumbers(saved.spikes, where + ": guard");
  }
  if (json.contains("validation")) ReadRecord(json["validation"], where + ": validation", saved.validation);
  saved.identity = IdentityFromJson(json, where);
  Visit(StateReader(root.At("provenance"), where + ": provenance"), saved.provenance);
  StateReader(root.At("optimizer"), where + ": optimizer")("updates", saved.updates);
  return saved;
}

void StateFromJson(const nlohmann::json& json, const std::string& where, TrainState& state) {
  SavedState saved = SavedStateFromJson(json, where, state.position.epoch_sums);
  state.position = std::move(saved.position);
  state.spikes = std::move(saved.spikes);
  state.validation = std::move(saved.validation);
  state.identity = std::move(saved.identity);
  state.provenance = std::move(saved.provenance);
  state.optimizer.Restore(saved.updates);
}

std::vector<dist::NamedTensor> OptimizerTensors(const TrainState& state) {
  if (state.shards) throw std::logic_error("OptimizerTensors: the moments lie on several ranks");
  std::vector<dist::NamedTensor> tensors;
  const auto add = [&](const at::Tensor& flat, const char* suffix) {
    for (const auto& span : state.parameters.Spans()) {
      tensors.push_back({span.name + suffix, flat.narrow(0, span.offset, span.size).view(span.shape)});
    }
  };
  add(state.optimizer.FirstMoment(), kFirstMoment);
  add(state.optimizer.SecondMoment(), kSecondMoment);
  return tensors;
}

}  // namespace plural::trainer
