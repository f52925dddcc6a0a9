// NF4 loops: 4-bit NormalFloat numbers to and from floating point, for the CPU.
//
// Owns: the arithmetic of the format (nf4.h) over plain pointers, vectorised by hand and compiled
// for several instruction sets. Every result equals that of bitsandbytes on a CPU to the bit, so
// rounding happens at the same steps: the file is compiled without fused multiply-adds. Does not
// own: tensors, threads, files. Thread rule: pure functions, one thread.
#pragma once

#include <c10/util/BFloat16.h>

#include <array>
#include <cstdint>

namespace plural::trainer::host {

constexpr std::int64_t kNf4Block = 64;       // values that share an absmax
constexpr std::int64_t kAbsmaxBlock = 256;   // quantised absmax values that share an absmax
constexpr std::int64_t kAbsmaxLevels = 256;  // entries of the map of a quantised absmax

constexpr std::int64_t CeilDivide(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// The 16 values of the type: quantiles of a normal distribution, scaled to [-1, 1] (QLoRA, appendix E).
extern const std::array<float, 16> kNf4Values;

// The 256 ascending values that bitsandbytes quantises absmax to (`create_dynamic_map`: a sign, an exponent
// of base 10 in unary, a linear fraction).
std::array<float, kAbsmaxLevels> DynamicMap();

// Values stored in NF4. One of `absmax` and `codes` is null: each block has an absmax, or a code,
// which stands for the absmax map[code] * nested[block / 256] + offset.
struct Nf4View {
  const std::uint8_t* packed = nullptr;  // two values per byte, the first in the high four bits
  std::int64_t count = 0;                // values
  const float* absmax = nullptr;
  const std::uint8_t* codes = nullptr;
  const float* map = nullptr;  // [256]
  const float* nested = nullptr;
  float offset = 0.0F;
};

// Values [begin, end) to out[0, end - begin): value * absmax in fp32, rounded once to the type of `out`.
void DequantizeNf4(const Nf4View& weight, std::int64_t begin, std::int64_t end, float* out);
void DequantizeNf4(const Nf4View& weight, std::int64_t begin, std::int64_t end, double* out);
void DequantizeNf4(const Nf4View& weight, std::int64_t begin, std::int64_t end, c10::BFloat16* out);

// Quantises x[0, count) to packed[0, (count + 1) / 2) and absmax[0, (count + 63) / 64). The last block may be
// shorter than the others; a tensor that is quantised in pieces is cut at multiples of 64.
void QuantizeNf4(const float* x, std::int64_t count, std::uint8_t* packed, float* absmax);

// Quantises x[0, count), the absmax of each block less the mean of all, to codes[0, count) of
// DynamicMap() and nested[0, (count + 255) / 256).
void QuantizeAbsmax(const float* x, std::int64_t count, std::uint8_t* codes, float* nested);

}  // namespace plural::trainer::host
