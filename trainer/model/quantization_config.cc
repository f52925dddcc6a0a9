#include "trainer/model/quantization_config.h"

#include <nlohmann/json.hpp>

#include "trainer/base/error.h"
#include "trainer/base/printable.h"

namespace plural::trainer {
using nlohmann::json;
namespace {

json At(const json& config, const char* key) {
  const auto found = config.find(key);
  return found == config.end() ? json() : *found;
}

std::string Shown(const json& value) {
  return Printable(value.dump(-1, ' ', false, json::error_handler_t::replace));
}

}  // namespace

void RequireNf4Config(const json& config, const std::string& where) {
  const auto refuse = [&where](const std::string& key, const std::string& found) {
    throw ExitError(ExitCode::kBadData, where + ": quantization_config" + key + ": found " + found +
                                            "; of quantised weights only bitsandbytes' nf4 is supported, "
                                            "use such a folder or the unquantised model");
  };
  if (!config.is_object()) refuse("", Shown(config));
  const json method = At(config, "quant_method");  // old versions of transformers wrote none
  if (!method.is_null() && method != "bitsandbytes") refuse(".quant_method", Shown(method));
  if (At(config, "load_in_8bit") == true) refuse(".load_in_8bit", "true (8-bit integers)");
  if (At(config, "load_in_4bit") != true) refuse(".load_in_4bit", Shown(At(config, "load_in_4bit")));
  const json type = At(config, "bnb_4bit_quant_type");
  if (type != "nf4") refuse(".bnb_4bit_quant_type", type.is_null() ? "none, which means fp4" : Shown(type));
}

}  // namespace plural::trainer
