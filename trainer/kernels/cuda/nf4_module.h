// The interface of the module plural_nf4, the CUDA kernel of NF4 weights, opened with dlopen.
//
// Owns: the entry point's name and type. Does not own: what it does (nf4_dequantize.cu). The module
// knows neither libtorch nor the trainer: it is compiled by nvcc and takes plain pointers. Thread
// rule: any thread.
#pragma once

#include <cstdint>

namespace plural::trainer {

inline constexpr char kNf4Module[] = "libplural_nf4.so";
inline constexpr char kDequantizeNf4Name[] = "plural_dequantize_nf4";

enum class Nf4Output : int { kFp32, kBf16 };

// Device pointers, as in host::Nf4View: one of `absmax` and `codes` is null.
struct Nf4Arguments {
  const std::uint8_t* packed;
  std::int64_t count;  // values
  const float* absmax;
  const std::uint8_t* codes;
  const float* map;
  const float* nested;
  float offset;
  const float* values;  // the 16 values, on the host
  void* out;
  Nf4Output type;
};

// Starts the kernel on `stream` (a cudaStream_t) of the current device. Returns CUDA's error, 0 for none.
using DequantizeNf4OnCuda = int(const Nf4Arguments& arguments, void* stream);

}  // namespace plural::trainer
