// The interface of the module plural_kernels, the CUDA kernels of the trainer, opened with dlopen.
//
// Owns: the entry points' names and types. Does not own: what they do (the .cu file of each). The module
// knows neither libtorch nor the trainer: it is compiled by nvcc and takes plain pointers. An entry point
// starts its kernel on `stream` (a cudaStream_t) of the current device and returns CUDA's error, 0 for none.
// Thread rule: any thread.
#pragma once

#include <cstdint>

namespace plural::trainer {

inline constexpr char kKernelModule[] = "libplural_kernels.so";

enum class KernelType : int { kFp32, kBf16, kFp64 };

// NF4 to fp32 or bf16. Device pointers, as in host::Nf4View: one of `absmax` and `codes` is null.
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
  KernelType type;
};
inline constexpr char kDequantizeNf4Name[] = "plural_dequantize_nf4";
using DequantizeNf4OnCuda = int(const Nf4Arguments& arguments, void* stream);

// x times the factors of host::DropoutFactor, which are fp32 for fp32 and bf16. Device pointers.
struct DropoutArguments {
  const void* x;  // [rows, features]
  void* out;      // the same, of the same type
  std::int64_t rows;
  std::int64_t features;
  const std::int64_t* row_key;
  std::uint64_t site;
  std::uint64_t threshold;  // host::DropoutThreshold
  double kept;
  KernelType type;
};
inline constexpr char kDropoutName[] = "plural_dropout";
using DropoutOnCuda = int(const DropoutArguments& arguments, void* stream);

}  // namespace plural::trainer
