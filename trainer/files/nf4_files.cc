#include "trainer/files/nf4_files.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/isfinite.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>

#include "trainer/base/error.h"
#include "trainer/base/json_io.h"
#include "trainer/base/printable.h"
#include "trainer/kernels/nf4_loops.h"

namespace plural::trainer {
using nlohmann::json;
namespace {

using host::CeilDivide;

constexpr std::string_view kQuantState = ".quant_state.bitsandbytes__";
constexpr std::array<std::string_view, 4> kSuffixes = {".absmax", ".quant_map", ".nested_absmax",
                                                       ".nested_quant_map"};
constexpr std::int64_t kMaxStateBytes = 1 << 16;
constexpr float kMapTolerance = 1e-6F;  // as bitsandbytes compares maps

std::int64_t Elements(at::IntArrayRef shape) {
  std::int64_t count = 1;
  for (const std::int64_t size : shape) count *= size;
  return count;
}

std::string ShapeText(at::IntArrayRef shape) { return json(shape.vec()).dump(); }

// One quantised weight of the files.
class Stored {
 public:
  Stored(const WeightFiles& files, std::string name, at::IntArrayRef shape)
      : files_(files), name_(std::move(name)), shape_(shape) {}

  StoredNf4 Check() const {
    if (shape_.size() != 2) Fail(name_, "is quantised; of a model only matrices can be");
    const std::string state_name = StateName();
    const json state = ReadState(state_name);
    RequireText(state, state_name, "quant_type", "nf4");
    RequireNumber(state, state_name, "blocksize", host::kNf4Block);
    const json& shape = At(state, "shape");
    if (shape != json(shape_.vec())) {
      Fail(state_name, "gives the weight the shape " + shape.dump() + "; the model has " + ShapeText(shape_));
    }
    StoredNf4 stored;
    stored.dtype = OriginalDType(state, state_name);
    stored.double_quantization = Has(".nested_absmax") || Has(".nested_quant_map") ||
                                 state.contains("nested_blocksize") || state.contains("nested_offset");
    const std::int64_t count = Elements(shape_), blocks = CeilDivide(count, host::kNf4Block);
    RequireBytes(CeilDivide(count, 2));
    Require(".absmax", stored.double_quantization ? at::kByte : at::kFloat, blocks);
    Require(".quant_map", at::kFloat, static_cast<std::int64_t>(host::kNf4Values.size()));
    if (!stored.double_quantization) return stored;

    RequireNumber(state, state_name, "nested_blocksize", host::kAbsmaxBlock);
    const json& offset = At(state, "nested_offset");
    if (!offset.is_number() || !std::isfinite(static_cast<float>(offset.get<double>()))) {
      Fail(state_name, "nested_offset is " + offset.dump() + "; a number is needed");
    }
    stored.offset = static_cast<float>(offset.get<double>());
    Require(".nested_absmax", at::kFloat, CeilDivide(blocks, host::kAbsmaxBlock));
    Require(".nested_quant_map", at::kFloat, host::kAbsmaxLevels);
    return stored;
  }

  Nf4Weight Read() const {
    const StoredNf4 stored = Check();
    RequireNf4Map();
    Nf4Weight weight;
    weight.outputs = shape_[0];
    weight.inputs = shape_[1];
    weight.packed_P = files_.Read(name_).view(-1).view(at::kByte);
    weight.absmax_B = files_.Read(name_ + ".absmax").view(-1);
    if (stored.double_quantization) {
      weight.map = files_.ReadFinite(name_ + ".nested_quant_map").view(-1);
      weight.nested_absmax_N = files_.Read(name_ + ".nested_absmax").view(-1);
      weight.offset = stored.offset;
    }
    // In bf16, so that no weight can overflow when it is dequantised to that.
    if (!at::isfinite(weight.Absmax().to(at::kBFloat16)).all().item<bool>()) {
      Fail(name_ + (stored.double_quantization ? ".nested_absmax" : ".absmax"),
           "holds or makes values that are NaN, infinite or beyond bf16");
    }
    return weight;
  }

 private:
  [[noreturn]] void Fail(const std::string& tensor, const std::string& what) const {
    const auto found = files_.Tensors().find(tensor);
    const auto& path = found == files_.Tensors().end() ? files_.Folder() : found->second->Path();
    throw ExitError(ExitCode::kBadData,
                    Printable("'" + path.string() + "': tensor '" + tensor + "' " + what));
  }

  bool Has(const std::string& suffix) const { return files_.Tensors().contains(name_ + suffix); }

  const SafetensorsReader::Entry& Entry(const std::string& tensor) const {
    const auto found = files_.Tensors().find(tensor);
    if (found == files_.Tensors().end())
      Fail(tensor, "is missing; '" + name_ + "' is quantised and needs it");
    return found->second->Entries().at(tensor);
  }

  std::string StateName() const {
    const std::string prefix = name_ + std::string(kQuantState);
    for (const std::string& name : QuantizationCompanions(files_, name_)) {
      if (!name.starts_with(prefix)) continue;
      if (name == prefix + "nf4") return name;
      Fail(name_, "is quantised as " + name.substr(prefix.size()) + "; supported is nf4");
    }
    Fail(prefix + "nf4", "is missing; '" + name_ + "' is quantised and needs it");
  }

  json ReadState(const std::string& tensor) const {
    const SafetensorsReader::Entry& entry = Entry(tensor);
    if (entry.dtype != at::kByte || entry.end - entry.begin > kMaxStateBytes) {
      Fail(tensor, "must be the bytes of a JSON object, at most " + std::to_string(kMaxStateBytes));
    }
    const at::Tensor bytes = files_.Read(tensor);
    const std::string_view text(static_cast<const char*>(bytes.const_data_ptr()),
                                static_cast<std::size_t>(bytes.numel()));
    const std::string where =
        "'" + files_.Tensors().at(tensor)->Path().string() + "': tensor '" + Printable(tensor) + "'";
    json state = ParseJson(text, where);
    if (!state.is_object()) Fail(tensor, "must be the bytes of a JSON object");
    return state;
  }

  static const json& At(const json& state, const char* key) {
    static const json null;
    const auto found = state.find(key);
    return found == state.end() ? null : *found;
  }

  void RequireText(const json& state, const std::string& tensor, const char* key,
                   const std::string& allowed) const {
    if (At(state, key) == allowed) return;
    Fail(tensor, std::string(key) + " is " + At(state, key).dump() + "; supported is " + allowed);
  }

  void RequireNumber(const json& state, const std::string& tensor, const char* key,
                     std::int64_t allowed) const {
    if (At(state, key).is_number_integer() && At(state, key) == allowed) return;
    Fail(tensor,
         std::string(key) + " is " + At(state, key).dump() + "; supported is " + std::to_string(allowed));
  }

  at::ScalarType OriginalDType(const json& state, const std::string& tensor) const {
    const json& dtype = At(state, "dtype");
    if (dtype == "float32") return at::kFloat;
    if (dtype == "bfloat16") return at::kBFloat16;
    if (dtype == "float16") return at::kHalf;
    Fail(tensor, "dtype is " + dtype.dump() + "; allowed are float32, bfloat16 and float16");
  }

  void RequireBytes(std::int64_t bytes) const {
    const SafetensorsReader::Entry& entry = Entry(name_);
    if (entry.end - entry.begin == bytes) return;
    Fail(name_, "holds " + std::to_string(entry.end - entry.begin) + " bytes; " + ShapeText(shape_) +
                    " values in NF4 are " + std::to_string(bytes));
  }

  void Require(const std::string& suffix, at::ScalarType dtype, std::int64_t count) const {
    const SafetensorsReader::Entry& entry = Entry(name_ + suffix);
    if (entry.dtype == dtype && Elements(entry.shape) == count) return;
    Fail(name_ + suffix, std::string("is ") + at::toString(entry.dtype) + " " + ShapeText(entry.shape) +
                             "; " + ShapeText(shape_) + " values in blocks of " +
                             std::to_string(host::kNf4Block) + " need " + std::to_string(count) + " of " +
                             at::toString(dtype));
  }

  void RequireNf4Map() const {
    const at::Tensor map = files_.Read(name_ + ".quant_map");
    const auto* values = map.const_data_ptr<float>();
    for (std::size_t i = 0; i < host::kNf4Values.size(); ++i) {
      if (std::fabs(values[i] - host::kNf4Values[i]) <= kMapTolerance) continue;
      Fail(name_ + ".quant_map", "is not the map of NF4: value " + std::to_string(i) + " is " +
                                     json(values[i]).dump() + " instead of " +
                                     json(host::kNf4Values[i]).dump());
    }
  }

  const WeightFiles& files_;
  std::string name_;
  at::IntArrayRef shape_;
};

}  // namespace

std::vector<std::string> QuantizationCompanions(const WeightFiles& files, const std::string& name) {
  std::vector<std::string> companions;
  const std::string prefix = name + ".";
  for (auto found = files.Tensors().lower_bound(prefix);
       found != files.Tensors().end() && found->first.starts_with(prefix); ++found) {
    const std::string_view suffix = std::string_view(found->first).substr(name.size());
    const bool known = std::find(kSuffixes.begin(), kSuffixes.end(), suffix) != kSuffixes.end();
    if (known || suffix.starts_with(kQuantState)) companions.push_back(found->first);
  }
  return companions;
}

StoredNf4 CheckNf4(const WeightFiles& files, const std::string& name, at::IntArrayRef shape) {
  return Stored(files, name, shape).Check();
}

Nf4Weight ReadNf4(const WeightFiles& files, const std::string& name, at::IntArrayRef shape) {
  return Stored(files, name, shape).Read();
}

}  // namespace plural::trainer
