#include "trainer/model/config.h"

#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <utility>

#include "trainer/error.h"
#include "trainer/json_io.h"

namespace plural::trainer {
using nlohmann::json;
namespace {

// Defaults are those of transformers 5, so that an absent key means the same in both programs.
struct Family {
  std::string_view model_type;
  std::string_view architecture;
  std::int64_t max_position_embeddings;
  std::int64_t num_key_value_heads;  // 0: as many as query heads
  std::int64_t sliding_window;       // 0: none
};
constexpr std::array<Family, 2> kFamilies = {
    {{"llama", "LlamaForCausalLM", 2048, 0, 0}, {"mistral", "MistralForCausalLM", 131072, 8, 4096}}};
constexpr const char* kSupported = "supported are llama (LlamaForCausalLM) and mistral (MistralForCausalLM)";

// Far above any model, low enough that the count of all parameters fits 63 bits.
constexpr std::int64_t kMaxVocabulary = 1 << 24;
constexpr std::int64_t kMaxHidden = 1 << 20;
constexpr std::int64_t kMaxIntermediate = 1 << 22;
constexpr std::int64_t kMaxLayers = 1 << 12;
constexpr std::int64_t kMaxHeads = 1 << 12;
constexpr std::int64_t kMaxHeadDim = 1 << 13;
constexpr std::int64_t kMaxPositions = std::int64_t{1} << 31;

// Typed access to one JSON object; every error names file and key.
class Keys {
 public:
  Keys(const json& object, std::string where) : object_(object), where_(std::move(where)) {
    if (!object.is_object()) throw ExitError(ExitCode::kBadData, where_ + ": a JSON object is needed");
  }

  [[noreturn]] void Fail(const std::string& key, const std::string& what) const {
    throw ExitError(ExitCode::kBadData, where_ + ": " + key + ": " + what);
  }
  // The value, or null when the key is absent.
  const json& At(const std::string& key) const {
    static const json null;
    const auto found = object_.find(key);
    return found == object_.end() ? null : *found;
  }
  bool Has(const std::string& key) const { return object_.contains(key); }

  std::int64_t Size(const std::string& key, std::int64_t largest,
                    std::optional<std::int64_t> fallback = std::nullopt) const {
    const json& value = At(key);
    if (value.is_null() && fallback) return *fallback;
    if (value.is_null()) Fail(key, "missing; a whole number is needed");
    return Whole(key, value, 1, largest);
  }

  std::int64_t Whole(const std::string& key, const json& value, std::int64_t smallest,
                     std::int64_t largest) const {
    // Signed when a program made the value, unsigned when the parser did.
    const bool beyond = value.is_number_unsigned() && value.get<std::uint64_t>() > std::uint64_t{1} << 62;
    const bool fits = value.is_number_integer() && !beyond && value.get<std::int64_t>() >= smallest &&
                      value.get<std::int64_t>() <= largest;
    if (!fits) {
      Fail(key, "found " + value.dump() + ", a whole number from " + std::to_string(smallest) + " to " +
                    std::to_string(largest) + " is allowed");
    }
    return value.get<std::int64_t>();
  }

  double Positive(const std::string& key, double fallback) const {
    const json& value = At(key);
    if (value.is_null()) return fallback;
    if (!value.is_number() || !std::isfinite(value.get<double>()) || value.get<double>() <= 0.0) {
      Fail(key, "found " + value.dump() + ", a positive number is allowed");
    }
    return value.get<double>();
  }

  bool Flag(const std::string& key, bool fallback) const {
    const json& value = At(key);
    if (value.is_null()) return fallback;
    if (!value.is_boolean()) Fail(key, "found " + value.dump() + ", true or false is allowed");
    return value.get<bool>();
  }

  std::string Text(const std::string& key, const std::string& fallback) const {
    const json& value = At(key);
    if (value.is_null()) return fallback;
    if (!value.is_string()) Fail(key, "found " + value.dump() + ", a string is needed");
    return value.get<std::string>();
  }

 private:
  const json& object_;
  std::string where_;
};

const Family& FamilyOf(const Keys& keys) {
  const std::string model_type = keys.Text("model_type", "");
  if (model_type.empty()) keys.Fail("model_type", std::string("missing; ") + kSupported);
  for (const Family& family : kFamilies) {
    if (model_type != family.model_type) continue;
    // A config may list architectures that share the type but not the head, such as a classifier.
    const json& list = keys.At("architectures");
    const json only = json::array({family.architecture});
    if (!list.is_null() && list != only) {
      keys.Fail("architectures", "found " + list.dump() + "; " + kSupported);
    }
    return family;
  }
  keys.Fail("model_type", "found '" + model_type + "'; " + kSupported);
}

// transformers 4 writes rope_theta beside rope_scaling (null or an object), transformers 5 one object
// rope_parameters that holds both.
double RopeTheta(const Keys& keys, const std::string& where) {
  double theta = keys.Positive("rope_theta", 10000.0);
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (keys.At(key).is_null()) continue;
    const Keys rope(keys.At(key), where + ": " + key);
    const std::string type = rope.Text("rope_type", rope.Text("type", "default"));
    if (type != "default") {
      rope.Fail("rope_type", "found '" + type + "'; only 'default', no scaling, is supported");
    }
    if (rope.Positive("partial_rotary_factor", 1.0) != 1.0) {
      rope.Fail("partial_rotary_factor", "only 1.0 is supported");
    }
    theta = rope.Positive("rope_theta", theta);
  }
  return theta;
}

std::vector<std::int64_t> EosTokenIds(const Keys& keys, std::int64_t vocab_size) {
  if (!keys.Has("eos_token_id"))
    return vocab_size > 2 ? std::vector<std::int64_t>{2} : std::vector<std::int64_t>{};
  const json& value = keys.At("eos_token_id");
  if (value.is_null()) return {};
  std::vector<std::int64_t> ids;
  for (const json& id : value.is_array() ? value : json::array({value})) {
    ids.push_back(keys.Whole("eos_token_id", id, 0, vocab_size - 1));
  }
  return ids;
}

std::int64_t BosTokenId(const Keys& keys, std::int64_t vocab_size) {
  if (!keys.Has("bos_token_id")) return vocab_size > 1 ? 1 : -1;
  const json& value = keys.At("bos_token_id");
  return value.is_null() ? -1 : keys.Whole("bos_token_id", value, 0, vocab_size - 1);
}

// Old configs of models without a padding token say -1.
std::int64_t PadTokenId(const Keys& keys, std::int64_t vocab_size) {
  const json& value = keys.At("pad_token_id");
  return value.is_null() ? -1 : keys.Whole("pad_token_id", value, -1, vocab_size - 1);
}

void RefuseWhatIsNotComputed(const Keys& keys) {
  for (const char* key : {"attention_bias", "mlp_bias"}) {
    if (keys.Flag(key, false)) keys.Fail(key, "found true; linear layers with a bias are not supported");
  }
  const std::string activation = keys.Text("hidden_act", "silu");
  if (activation != "silu") keys.Fail("hidden_act", "found '" + activation + "'; only 'silu' is supported");
  if (!keys.At("quantization_config").is_null()) {
    keys.Fail("quantization_config", "quantised weights are not supported; use the unquantised model");
  }
  if (keys.Positive("partial_rotary_factor", 1.0) != 1.0) {
    keys.Fail("partial_rotary_factor", "only 1.0 is supported");
  }
  if (!keys.At("layer_types").is_null()) {
    for (const json& type : keys.At("layer_types")) {
      if (type != "full_attention" || !keys.At("sliding_window").is_null()) {
        keys.Fail("layer_types", "kinds of attention that differ by layer are not supported");
      }
    }
  }
}

}  // namespace

ModelConfig ModelConfig::FromJson(const json& object, const std::string& where) {
  const Keys keys(object, where);
  const Family& family = FamilyOf(keys);
  RefuseWhatIsNotComputed(keys);

  ModelConfig config;
  config.model_type = family.model_type;
  config.architecture = family.architecture;
  config.vocab_size = keys.Size("vocab_size", kMaxVocabulary);
  config.hidden_size = keys.Size("hidden_size", kMaxHidden);
  config.intermediate_size = keys.Size("intermediate_size", kMaxIntermediate);
  config.num_hidden_layers = keys.Size("num_hidden_layers", kMaxLayers);
  const std::int64_t heads = keys.Size("num_attention_heads", kMaxHeads);
  config.num_attention_heads = heads;
  const bool absent = !keys.Has("num_key_value_heads") && family.num_key_value_heads > 0;
  config.num_key_value_heads =
      keys.Size("num_key_value_heads", kMaxHeads, absent ? family.num_key_value_heads : heads);
  if (heads % config.num_key_value_heads != 0) {
    keys.Fail("num_key_value_heads", "found " + std::to_string(config.num_key_value_heads) +
                                         ", it must divide num_attention_heads (" + std::to_string(heads) +
                                         ")");
  }
  if (keys.At("head_dim").is_null() && config.hidden_size % heads != 0) {
    keys.Fail("hidden_size", "found " + std::to_string(config.hidden_size) +
                                 ", without head_dim it must be a multiple of num_attention_heads (" +
                                 std::to_string(heads) + ")");
  }
  config.head_dim = keys.Size("head_dim", kMaxHeadDim, config.hidden_size / heads);
  if (config.head_dim % 2 != 0) {
    keys.Fail("head_dim",
              "found " + std::to_string(config.head_dim) + "; the rotary embedding needs an even size");
  }
  config.max_position_embeddings =
      keys.Size("max_position_embeddings", kMaxPositions, family.max_position_embeddings);
  // An absent sliding_window is the family's, null is none; Llama has no such key.
  if (!keys.Has("sliding_window")) {
    config.sliding_window = family.sliding_window;
  } else if (family.model_type == "mistral") {
    config.sliding_window = keys.Size("sliding_window", kMaxPositions, 0);
  }
  config.rms_norm_eps = keys.Positive("rms_norm_eps", 1e-6);
  config.rope_theta = RopeTheta(keys, where);
  config.initializer_range = keys.Positive("initializer_range", 0.02);
  config.tie_word_embeddings = keys.Flag("tie_word_embeddings", false);
  config.eos_token_ids = EosTokenIds(keys, config.vocab_size);
  config.bos_token_id = BosTokenId(keys, config.vocab_size);
  config.pad_token_id = PadTokenId(keys, config.vocab_size);
  return config;
}

ModelConfig ModelConfig::FromFolder(const std::filesystem::path& folder) {
  const std::filesystem::path file = folder / "config.json";
  if (!std::filesystem::exists(file)) {
    throw ExitError(ExitCode::kMissingInput,
                    "'" + folder.string() +
                        "' has no config.json; a model is a Hugging Face folder with "
                        "config.json and *.safetensors");
  }
  return FromJson(ReadJsonFile(file), "'" + file.string() + "'");
}

json ModelConfig::ToJson() const {
  json object = {
      {"architectures", {architecture}},
      {"model_type", model_type},
      {"vocab_size", vocab_size},
      {"hidden_size", hidden_size},
      {"intermediate_size", intermediate_size},
      {"num_hidden_layers", num_hidden_layers},
      {"num_attention_heads", num_attention_heads},
      {"num_key_value_heads", num_key_value_heads},
      {"head_dim", head_dim},
      {"hidden_act", "silu"},
      {"max_position_embeddings", max_position_embeddings},
      {"rms_norm_eps", rms_norm_eps},
      {"rope_theta", rope_theta},  // for transformers 4
      {"rope_parameters", {{"rope_type", "default"}, {"rope_theta", rope_theta}}},
      {"initializer_range", initializer_range},
      {"tie_word_embeddings", tie_word_embeddings},
      {"attention_dropout", 0.0},
      {"use_cache", true},
      {"bos_token_id", bos_token_id < 0 ? json() : json(bos_token_id)},
      {"eos_token_id", nullptr},
  };
  if (eos_token_ids.size() == 1) object["eos_token_id"] = eos_token_ids.front();
  if (eos_token_ids.size() > 1) object["eos_token_id"] = eos_token_ids;
  if (pad_token_id >= 0) object["pad_token_id"] = pad_token_id;
  if (model_type == "llama") {
    object["attention_bias"] = false;
    object["mlp_bias"] = false;
  } else {
    object["sliding_window"] = sliding_window > 0 ? json(sliding_window) : json();
  }
  return object;
}

std::int64_t ModelConfig::ParameterCount() const {
  const std::int64_t attention = hidden_size * head_dim * 2 * (num_attention_heads + num_key_value_heads);
  const std::int64_t feed_forward = 3 * hidden_size * intermediate_size;
  const std::int64_t layer = attention + feed_forward + 2 * hidden_size;
  const std::int64_t tables = vocab_size * hidden_size * (tie_word_embeddings ? 1 : 2);
  return num_hidden_layers * layer + tables + hidden_size;
}

}  // namespace plural::trainer
