// Quantises and dequantises the tensors of a safetensors file, for the comparison with bitsandbytes.
//
//   nf4_convert IN.safetensors OUT.safetensors
//
// For each matrix X of IN, OUT holds X.plain.* and, with double quantisation, X.double.*: `packed`, `absmax`,
// for the latter also `map`, `nested` and `offset`; `fp32`, `bf16` and `fp64`, dequantised.
#include <ATen/core/Tensor.h>
#include <ATen/ops/full.h>

#include <iostream>
#include <string>
#include <vector>

#include "trainer/files/safetensors.h"
#include "trainer/ops/nf4.h"

using plural::trainer::Nf4Weight;

int main(int count, char** arguments) {
  if (count != 3) {
    std::cerr << "usage: nf4_convert IN.safetensors OUT.safetensors\n";
    return 64;
  }
  const plural::trainer::SafetensorsReader reader(arguments[1]);
  std::vector<plural::dist::NamedTensor> out;
  for (const auto& [name, entry] : reader.Entries()) {
    for (const bool twice : {false, true}) {
      const Nf4Weight weight = plural::trainer::QuantizeToNf4(reader.Read(name), twice);
      const std::string prefix = name + (twice ? ".double." : ".plain.");
      out.push_back({prefix + "packed", weight.packed_P});
      out.push_back({prefix + "absmax", weight.absmax_B});
      if (twice) {
        out.push_back({prefix + "map", weight.map});
        out.push_back({prefix + "nested", weight.nested_absmax_N});
        out.push_back({prefix + "offset", at::full({1}, weight.offset, at::kFloat)});
      }
      out.push_back({prefix + "fp32", weight.Dequantized(at::kFloat)});
      out.push_back({prefix + "bf16", weight.Dequantized(at::kBFloat16)});
      out.push_back({prefix + "fp64", weight.Dequantized(at::kDouble)});
    }
  }
  plural::trainer::WriteSafetensors(arguments[2], out);
  return 0;
}
