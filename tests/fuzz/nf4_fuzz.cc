// NF4 weights in files. An input is a safetensors file: the weight `w` of 8 by 12 values in it is refused in
// one line, or all its values are finite.
#include <ATen/core/Tensor.h>
#include <ATen/ops/isfinite.h>

#include <cstdint>
#include <string>

#include "tests/fuzz/require.h"
#include "tests/fuzz/safetensors_mutator.h"
#include "trainer/base/error.h"
#include "trainer/files/nf4_files.h"

using plural::fuzz::Require;

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned seed) {
  return plural::fuzz::MutateSafetensors(data, size, max_size, seed);
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const plural::fuzz::ScratchFolder folder;
  folder.Write("model.safetensors", {reinterpret_cast<const char*>(data), size});
  try {
    const plural::trainer::WeightFiles files(folder.Path(), "model");
    const plural::trainer::Nf4Weight weight = plural::trainer::ReadNf4(files, "w", {8, 12});
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      const at::Tensor values = weight.Dequantized(dtype);
      Require(values.sizes() == at::IntArrayRef({8, 12}), "a weight of another shape than the one asked for");
      Require(at::isfinite(values).all().item<bool>(), "a value that is not finite");
    }
  } catch (const plural::ExitError& error) {
    Require(error.Code() == plural::ExitCode::kBadData, error.what());
    plural::fuzz::RequireOneLine(error.what());
  }
  return 0;
}
