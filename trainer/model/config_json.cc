// Reads and writes config.json by the table of families; config.cc has the rest of ModelConfig.
#include <nlohmann/json.hpp>
#include <string_view>

#include "trainer/model/config.h"
#include "trainer/model/config_keys.h"
#include "trainer/model/families.h"
#include "trainer/model/quantization_config.h"

namespace plural::trainer {
using nlohmann::json;
namespace {

// Far above any model, and low enough for the count of all parameters to fit 63 bits.
constexpr std::int64_t kMaxVocabulary = 1 << 24;
constexpr std::int64_t kMaxHidden = 1 << 20;
constexpr std::int64_t kMaxIntermediate = 1 << 22;
constexpr std::int64_t kMaxLayers = 1 << 12;
constexpr std::int64_t kMaxHeads = 1 << 12;
constexpr std::int64_t kMaxHeadDim = 1 << 13;
constexpr std::int64_t kMaxPositions = std::int64_t{1} << 31;

constexpr double kSlidingTheta = 10000.0;
constexpr const char* kSlides = "sliding_attention";
constexpr const char* kSeesAll = "full_attention";

const Family& FamilyOf(const ConfigKeys& keys) {
  const std::string model_type = keys.Text("model_type", "");
  if (model_type.empty()) keys.Fail("model_type", "missing; " + SupportedFamilies());
  const Family* family = FindFamily(model_type);
  if (family == nullptr) keys.Fail("model_type", "found '" + model_type + "'; " + SupportedFamilies());
  // A config may list architectures that share the type but not the head, such as a classifier.
  const json& list = keys.At("architectures");
  if (!list.is_null() && list != json::array({family->architecture})) {
    keys.Fail("architectures", "found " + list.dump() + "; " + SupportedFamilies());
  }
  return *family;
}

// `theta`: the value where the object has none.
Rope ReadRope(const ConfigKeys& keys, const ConfigKeys& object, double theta,
              std::int64_t max_position_embeddings) {
  for (const char* nested : {kSlides, kSeesAll}) {
    if (object.Has(nested)) object.Fail(nested, "this family has one rotary embedding for all layers");
  }
  if (object.Positive("partial_rotary_factor", 1.0) != 1.0) {
    object.Fail("partial_rotary_factor", "only 1.0 is supported");
  }
  Rope rope;
  rope.theta = object.Positive("rope_theta", theta);
  const std::string type = object.Text("rope_type", object.Text("type", "default"));
  if (type == "default") return rope;
  if (type != "linear" && type != "llama3") {
    object.Fail("rope_type",
                "found '" + type + "'; 'default' (no scaling), 'linear' and 'llama3' are supported");
  }
  rope.factor = object.Positive("factor");
  rope.scaling = type == "linear" ? Rope::Scaling::kLinear : Rope::Scaling::kLlama3;
  if (rope.scaling == Rope::Scaling::kLinear) return rope;
  rope.low_freq_factor = object.Positive("low_freq_factor");
  rope.high_freq_factor = object.Positive("high_freq_factor");
  if (rope.high_freq_factor <= rope.low_freq_factor) {
    object.Fail("high_freq_factor", "found " + object.At("high_freq_factor").dump() +
                                        ", it must be larger than low_freq_factor (" +
                                        object.At("low_freq_factor").dump() + ")");
  }
  constexpr const char* kOriginal = "original_max_position_embeddings";
  rope.original_max_position_embeddings =
      keys.Size(kOriginal, kMaxPositions, object.Size(kOriginal, kMaxPositions, max_position_embeddings));
  return rope;
}

// transformers 4 writes rope_theta beside rope_scaling (null or an object), transformers 5 one object
// rope_parameters that holds both, or one for each kind of layer.
void ReadRopes(const ConfigKeys& keys, const Family& family, ModelConfig& config) {
  const auto is_set = [](const ConfigKeys& object, const char* key) {
    const json& value = object.At(key);
    return !value.is_null() && !(value.is_object() && value.empty());
  };
  const double theta = keys.Positive("rope_theta", family.rope_theta);
  const char* scaling = is_set(keys, "rope_scaling") || family.two_ropes ? "rope_scaling" : "rope_parameters";
  config.rope.theta = theta;
  if (is_set(keys, scaling)) {
    config.rope = ReadRope(keys, keys.Object(scaling), theta, config.max_position_embeddings);
  }
  if (!family.two_ropes) return;
  config.sliding_rope.emplace().theta = keys.Positive("rope_local_base_freq", kSlidingTheta);
  if (!is_set(keys, "rope_parameters")) return;
  const ConfigKeys both = keys.Object("rope_parameters");
  if (!both.Has(kSlides) && !both.Has(kSeesAll)) {
    keys.Fail("rope_parameters",
              std::string("an object for '") + kSeesAll + "' and one for '" + kSlides + "' are needed");
  }
  if (is_set(both, kSeesAll) && !is_set(keys, "rope_scaling")) {
    config.rope = ReadRope(keys, both.Object(kSeesAll), theta, config.max_position_embeddings);
  }
  if (is_set(both, kSlides)) {
    config.sliding_rope =
        ReadRope(keys, both.Object(kSlides), config.sliding_rope->theta, config.max_position_embeddings);
  }
}

// True for a layer that has the window when the config does not list them.
bool SlidesByDefault(const ConfigKeys& keys, Windows windows, std::int64_t layer) {
  constexpr std::int64_t kPattern = 6, kFullLayers = 28;
  switch (windows) {
    case Windows::kNever:
      return false;
    case Windows::kAlways:
      return true;
    case Windows::kEveryOther:
      return layer % 2 == 0;
    case Windows::kFiveOfSix:
      return (layer + 1) % keys.Size("sliding_window_pattern", kMaxLayers, kPattern) != 0;
    case Windows::kUpperLayers:
      break;
  }
  const json& first = keys.At("max_window_layers");
  return layer >= (first.is_null() ? kFullLayers : keys.Whole("max_window_layers", first, 0, kMaxLayers));
}

void ReadWindows(const ConfigKeys& keys, const Family& family, ModelConfig& config) {
  const bool has_window = family.windows != Windows::kNever &&
                          (family.windows != Windows::kUpperLayers || keys.Flag("use_sliding_window", false));
  if (has_window) {
    // An absent sliding_window means the family's, null means none.
    config.sliding_window =
        keys.Size("sliding_window", kMaxPositions, keys.Has("sliding_window") ? 0 : family.sliding_window);
  }
  const json& types = keys.At("layer_types");
  if (!types.is_null() &&
      (!types.is_array() || static_cast<std::int64_t>(types.size()) != config.num_hidden_layers)) {
    keys.Fail("layer_types", "a list of num_hidden_layers (" + std::to_string(config.num_hidden_layers) +
                                 ") kinds of attention is needed");
  }
  for (std::int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    const bool by_default = config.sliding_window > 0 && SlidesByDefault(keys, family.windows, layer);
    const json type =
        types.is_null() ? json(by_default ? kSlides : kSeesAll) : types[static_cast<std::size_t>(layer)];
    if (type != kSlides && type != kSeesAll) {
      keys.Fail("layer_types",
                "found " + type.dump() + "; '" + kSeesAll + "' and '" + kSlides + "' are supported");
    }
    const bool slides = type == kSlides;
    if (slides && config.sliding_window == 0) {
      keys.Fail("layer_types", std::string("'") + kSlides + "' needs a sliding_window, which is not set");
    }
    const bool fixed = family.windows == Windows::kNever || family.windows == Windows::kAlways;
    if (fixed && slides != by_default) {
      keys.Fail("layer_types", "kinds of attention that differ by layer are not supported for this family");
    }
    if (!fixed && config.sliding_window > 0) config.sliding_layers.push_back(slides);
  }
}

Activation ReadActivation(const ConfigKeys& keys, const Family& family) {
  constexpr const char* kTanhGelu = "gelu_pytorch_tanh";
  std::vector<const char*> read = {"hidden_act"};
  // Gemma's configs have either or both; later families do not read hidden_act any more.
  if (family.gelu) read.push_back("hidden_activation");
  if (family.output_norms) read.erase(read.begin());
  std::string activation = family.gelu ? kTanhGelu : "silu";
  for (const char* key : read) {
    std::string found = keys.Text(key, activation);
    // The name in old configs of Gemma.
    if (family.gelu && std::string_view(key) == "hidden_act" && found == "gelu") found = kTanhGelu;
    if (found != "silu" && found != kTanhGelu) {
      keys.Fail(key, "found '" + found + "'; 'silu' and '" + kTanhGelu + "' are supported");
    }
    activation = found;
  }
  return activation == "silu" ? Activation::kSilu : Activation::kGeluTanh;
}

void ReadBiases(const ConfigKeys& keys, const Family& family, ModelConfig& config) {
  const auto read = [&keys](const char* key, bool is_read) {
    const bool on = keys.Flag(key, false);
    if (on && !is_read) keys.Fail(key, "found true; this family is supported without");
    return on;
  };
  config.o_bias = read("attention_bias", family.reads_attention_bias);
  config.qkv_bias = config.o_bias || family.qkv_bias;
  config.mlp_bias = read("mlp_bias", family.reads_mlp_bias);
}

void ReadCaps(const ConfigKeys& keys, const Family& family, ModelConfig& config) {
  const auto read = [&keys](const char* key, bool is_read, double fallback) {
    const double value = keys.PositiveOrNull(key, is_read ? fallback : 0.0);
    if (value > 0.0 && !is_read) {
      keys.Fail(key, "found " + keys.At(key).dump() + "; this family is supported without");
    }
    return value;
  };
  config.attn_logit_softcapping =
      read("attn_logit_softcapping", family.reads_attention_cap, family.attention_cap);
  config.final_logit_softcapping = read("final_logit_softcapping", family.reads_final_cap, family.final_cap);
  config.query_pre_attn_scalar =
      read("query_pre_attn_scalar", family.query_pre_attn_scalar > 0.0, family.query_pre_attn_scalar);
}

std::int64_t TokenId(const ConfigKeys& keys, const char* key, std::int64_t fallback,
                     std::int64_t vocab_size) {
  const json& value = keys.At(key);
  if (!keys.Has(key)) return fallback < vocab_size ? fallback : -1;
  // Old configs of models without a padding token have -1.
  return value.is_null() ? -1 : keys.Whole(key, value, -1, vocab_size - 1);
}

std::vector<std::int64_t> EosTokenIds(const ConfigKeys& keys, std::int64_t fallback,
                                      std::int64_t vocab_size) {
  const json& value = keys.At("eos_token_id");
  if (!keys.Has("eos_token_id") && fallback >= 0 && fallback < vocab_size) return {fallback};
  if (value.is_null()) return {};
  std::vector<std::int64_t> ids;
  for (const json& id : value.is_array() ? value : json::array({value})) {
    ids.push_back(keys.Whole("eos_token_id", id, 0, vocab_size - 1));
  }
  return ids;
}

void ReadHeads(const ConfigKeys& keys, const Family& family, ModelConfig& config) {
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
  const bool derived = keys.At("head_dim").is_null() && family.head_dim == 0;
  if (derived && config.hidden_size % heads != 0) {
    keys.Fail("hidden_size", "found " + std::to_string(config.hidden_size) +
                                 ", without head_dim it must be a multiple of num_attention_heads (" +
                                 std::to_string(heads) + ")");
  }
  config.head_dim =
      keys.Size("head_dim", kMaxHeadDim, family.head_dim > 0 ? family.head_dim : config.hidden_size / heads);
  if (config.head_dim % 2 != 0) {
    keys.Fail("head_dim",
              "found " + std::to_string(config.head_dim) + "; the rotary embedding needs an even size");
  }
}

json Number(double value) {
  const auto whole = static_cast<std::int64_t>(value);
  return static_cast<double>(whole) == value ? json(whole) : json(value);
}

json RopeToJson(const Rope& rope, bool with_theta) {
  json object = {{"rope_type", "default"}};
  if (with_theta) object["rope_theta"] = rope.theta;
  if (rope.scaling == Rope::Scaling::kNone) return object;
  object["factor"] = rope.factor;
  object["rope_type"] = rope.scaling == Rope::Scaling::kLinear ? "linear" : "llama3";
  if (rope.scaling == Rope::Scaling::kLinear) return object;
  object["low_freq_factor"] = rope.low_freq_factor;
  object["high_freq_factor"] = rope.high_freq_factor;
  object["original_max_position_embeddings"] = rope.original_max_position_embeddings;
  return object;
}

void WriteWindows(const ModelConfig& config, Windows windows, json& object) {
  if (windows == Windows::kNever) return;
  object["sliding_window"] = config.sliding_window > 0 ? json(config.sliding_window) : json();
  if (windows == Windows::kAlways) return;
  json types = json::array();
  std::int64_t first = config.num_hidden_layers;
  for (std::int64_t layer = config.num_hidden_layers; layer-- > 0;) {
    types.insert(types.begin(), config.HasWindow(layer) ? kSlides : kSeesAll);
    if (config.HasWindow(layer)) first = layer;
  }
  object["layer_types"] = types;
  if (windows != Windows::kUpperLayers) return;
  object["use_sliding_window"] = config.sliding_window > 0;
  object["max_window_layers"] = first;
}

}  // namespace

ModelConfig ModelConfig::FromJson(const json& object, const std::string& where) {
  const ConfigKeys keys(object, where);
  const Family& family = FamilyOf(keys);
  if (!keys.At("quantization_config").is_null()) {
    RequireNf4Config(keys.At("quantization_config"), where);
  }
  if (keys.Positive("partial_rotary_factor", 1.0) != 1.0) {
    keys.Fail("partial_rotary_factor", "only 1.0 is supported");
  }
  if (keys.Flag("use_bidirectional_attention", false)) {
    keys.Fail("use_bidirectional_attention", "found true; only causal attention is supported");
  }

  ModelConfig config;
  config.model_type = family.model_type;
  config.architecture = family.architecture;
  config.vocab_size = keys.Size("vocab_size", kMaxVocabulary);
  config.hidden_size = keys.Size("hidden_size", kMaxHidden);
  config.intermediate_size = keys.Size("intermediate_size", kMaxIntermediate);
  config.num_hidden_layers = keys.Size("num_hidden_layers", kMaxLayers);
  ReadHeads(keys, family, config);
  config.max_position_embeddings =
      keys.Size("max_position_embeddings", kMaxPositions, family.max_position_embeddings);
  config.rms_norm_eps = keys.Positive("rms_norm_eps", family.rms_norm_eps);
  config.initializer_range = keys.Positive("initializer_range", 0.02);
  config.tie_word_embeddings = keys.Flag("tie_word_embeddings", family.tie_word_embeddings);
  config.eos_token_ids = EosTokenIds(keys, family.eos_token_id, config.vocab_size);
  config.bos_token_id = TokenId(keys, "bos_token_id", family.bos_token_id, config.vocab_size);
  config.pad_token_id = TokenId(keys, "pad_token_id", family.pad_token_id, config.vocab_size);

  ReadWindows(keys, family, config);
  ReadRopes(keys, family, config);
  ReadBiases(keys, family, config);
  ReadCaps(keys, family, config);
  config.activation = ReadActivation(keys, family);
  config.qk_norm = family.qk_norm;
  config.fused_projections = family.fused_projections;
  config.norm_weight_offset = family.gelu ? 1.0 : 0.0;
  config.scaled_embedding = family.gelu;
  config.output_norms = family.output_norms;
  config.stored_in_nf4 = !keys.At("quantization_config").is_null();
  return config;
}

json ModelConfig::ToJson() const {
  const Family& family = *FindFamily(model_type);
  const char* act = activation == Activation::kSilu ? "silu" : "gelu_pytorch_tanh";
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
      {"hidden_act", act},
      {"max_position_embeddings", max_position_embeddings},
      {"rms_norm_eps", rms_norm_eps},
      {"rope_theta", rope.theta},  // for transformers 4, as rope_scaling and rope_local_base_freq
      {"rope_parameters", RopeToJson(rope, true)},
      {"initializer_range", initializer_range},
      {"tie_word_embeddings", tie_word_embeddings},
      {"attention_dropout", 0.0},
      {"use_cache", true},
      {"bos_token_id", bos_token_id < 0 ? json() : json(bos_token_id)},
      {"eos_token_id", nullptr},
      {"pad_token_id", pad_token_id < 0 ? json() : json(pad_token_id)},
  };
  if (eos_token_ids.size() == 1) object["eos_token_id"] = eos_token_ids.front();
  if (eos_token_ids.size() > 1) object["eos_token_id"] = eos_token_ids;
  if (rope.scaling != Rope::Scaling::kNone) object["rope_scaling"] = RopeToJson(rope, false);
  if (family.two_ropes) {
    const Rope& sliding = sliding_rope.value_or(rope);
    object["rope_parameters"] = {{kSeesAll, RopeToJson(rope, true)}, {kSlides, RopeToJson(sliding, true)}};
    object["rope_local_base_freq"] = sliding.theta;
  }
  WriteWindows(*this, family.windows, object);
  if (family.gelu) object["hidden_activation"] = act;
  if (family.reads_attention_bias) object["attention_bias"] = o_bias;
  if (family.reads_mlp_bias) object["mlp_bias"] = mlp_bias;
  if (family.query_pre_attn_scalar > 0.0) object["query_pre_attn_scalar"] = Number(query_pre_attn_scalar);
  const auto cap = [](double value) { return value > 0.0 ? json(value) : json(); };
  if (family.reads_attention_cap) object["attn_logit_softcapping"] = cap(attn_logit_softcapping);
  if (family.reads_final_cap) object["final_logit_softcapping"] = cap(final_logit_softcapping);
  return object;
}

}  // namespace plural::trainer
