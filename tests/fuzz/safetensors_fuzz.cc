// The safetensors reader: any bytes are a file that it refuses in one line, or whose tensors it can read.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "tests/fuzz/require.h"
#include "tests/fuzz/safetensors_mutator.h"
#include "trainer/base/error.h"
#include "trainer/files/safetensors.h"

using plural::fuzz::Require;

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned seed) {
  return plural::fuzz::MutateSafetensors(data, size, max_size, seed);
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const plural::fuzz::ScratchFolder folder;
  folder.Write("x.safetensors", {reinterpret_cast<const char*>(data), size});
  try {
    const plural::trainer::SafetensorsReader reader(folder.Path() / "x.safetensors");
    std::size_t bytes = 0;
    for (const auto& [name, entry] : reader.Entries()) {
      const at::Tensor tensor = reader.Read(name);
      Require(tensor.sizes() == at::IntArrayRef(entry.shape) && tensor.scalar_type() == entry.dtype,
              "a tensor of another shape or dtype than the header says");
      bytes += tensor.nbytes();
    }
    Require(bytes < size, "more bytes of tensors than the file has");
  } catch (const plural::ExitError& error) {
    Require(error.Code() == plural::ExitCode::kBadData, error.what());
    plural::fuzz::RequireOneLine(error.what());
  }
  return 0;
}
