#include "trainer/kernels/nf4_loops.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "trainer/kernels/host_vectors.h"

namespace plural::trainer::host {

const std::array<float, 16> kNf4Values = {
    -1.0F,
    -0.6961928009986877F,
    -0.5250730514526367F,
    -0.39491748809814453F,
    -0.28444138169288635F,
    -0.18477343022823334F,
    -0.09105003625154495F,
    0.0F,
    0.07958029955625534F,
    0.16093020141124725F,
    0.24611230194568634F,
    0.33791524171829224F,
    0.44070982933044434F,
    0.5626170039176941F,
    0.7229568362236023F,
    1.0F,
};

namespace {

constexpr float kSmallestAbsmax = 1e-38F;  // the least divisor of bitsandbytes

using Eight = float __attribute__((vector_size(32)));
using EightWords = std::uint32_t __attribute__((vector_size(32)));
using EightHalves = std::uint16_t __attribute__((vector_size(16)));
using EightDoubles = double __attribute__((vector_size(64)));

PLURAL_INLINE void StoreEight(float* out, const Eight& v) { std::memcpy(out, &v, sizeof v); }
PLURAL_INLINE void StoreEight(double* out, const Eight& v) {
  const EightDoubles wide = __builtin_convertvector(v, EightDoubles);
  std::memcpy(out, &wide, sizeof wide);
}
// Rounds to nearest, ties to even. Values stored in NF4 are finite, so NaN needs no care.
PLURAL_INLINE void StoreEight(c10::BFloat16* out, const Eight& v) {
  EightWords bits;
  std::memcpy(&bits, &v, sizeof bits);
  bits = (bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16;
  const EightHalves halves = __builtin_convertvector(bits, EightHalves);
  std::memcpy(out, &halves, sizeof halves);
}

// Absmax of the block `block`, in two steps as bitsandbytes does.
PLURAL_INLINE float Absmax(const Nf4View& weight, std::int64_t block) {
  if (weight.absmax != nullptr) return weight.absmax[block];
  const float centred = weight.map[weight.codes[block]] * weight.nested[block / kAbsmaxBlock];
  return centred + weight.offset;
}

// The values at eight indices, of which only the lowest four bits count.
PLURAL_INLINE Eight ValuesAt(Eight low, Eight high, EightWords index) {
#if defined(__clang__)  // has no shuffle by a variable mask
  Eight values = {};
  for (int i = 0; i < 8; ++i) values[i] = (index[i] & 8) != 0 ? high[index[i] & 7] : low[index[i] & 7];
  return values;
#else
  return __builtin_shuffle(low, high, index);
#endif
}

// A block, eight values of one 32-bit word at a time.
template <class T>
PLURAL_INLINE void WholeBlock(const std::uint8_t* packed, float absmax, T* out) {
  Eight low, high;  // of the 16 values
  std::memcpy(&low, kNf4Values.data(), sizeof low);
  std::memcpy(&high, kNf4Values.data() + 8, sizeof high);
  const EightWords shifts = {4, 0, 12, 8, 20, 16, 28, 24};
#pragma GCC unroll 8
  for (std::int64_t i = 0; i < kNf4Block; i += 8) {
    std::uint32_t word = 0;
    std::memcpy(&word, packed + i / 2, sizeof word);
    StoreEight(out + i, ValuesAt(low, high, (EightWords{} + word) >> shifts) * absmax);
  }
}

template <class T>
PLURAL_INLINE void DequantizeLoop(const Nf4View& weight, std::int64_t begin, std::int64_t end, T* out) {
  while (begin < end) {
    const std::int64_t block = begin / kNf4Block;
    const std::int64_t stop = std::min(end, (block + 1) * kNf4Block);
    const float absmax = Absmax(weight, block);
    if (stop - begin == kNf4Block) {
      WholeBlock(weight.packed + begin / 2, absmax, out);
    } else {
      for (std::int64_t i = begin; i < stop; ++i) {
        const std::uint8_t pair = weight.packed[i / 2];
        out[i - begin] = static_cast<T>(kNf4Values[i % 2 == 0 ? pair >> 4 : pair & 15] * absmax);
      }
    }
    out += stop - begin;
    begin = stop;
  }
}

// The upper ends of the first 15 values' neighbourhoods: a number on an end belongs to the lower value.
std::array<float, 15> Midpoints() {
  std::array<float, 15> midpoints{};
  for (std::size_t i = 0; i < midpoints.size(); ++i) midpoints[i] = (kNf4Values[i] + kNf4Values[i + 1]) / 2;
  return midpoints;
}

// Indices of 16 numbers within [-1, 1].
PLURAL_INLINE Ints Nearest(const Vector<float>& x, const std::array<float, 15>& midpoints) {
  Ints index{};
#pragma GCC unroll 15
  for (const float midpoint : midpoints) index -= x > midpoint;  // a true lane is -1
  return index;
}

PLURAL_INLINE float LargestOf(const float* x, std::int64_t count) {
  Vector<float> largest{};
  for (std::int64_t i = 0; i < count; i += Lanes<float>::kWidth) {
    const Vector<float> v = Load(x + i, count - i);
    largest = Max(largest, v < 0.0F ? -v : v);
  }
  float result = 0.0F;
  for (std::int64_t l = 0; l < Lanes<float>::kWidth; ++l) result = std::max(result, largest[l]);
  return result;
}

// A short last block is divided by its absmax and stores that divisor; whole blocks are multiplied
// by the reciprocal.
PLURAL_INLINE void QuantizeBlock(const float* x, std::int64_t count, const std::array<float, 15>& midpoints,
                                 std::uint8_t* packed, float* absmax) {
  constexpr std::int64_t kWidth = Lanes<float>::kWidth;
  const float largest = LargestOf(x, count), divisor = std::max(largest, kSmallestAbsmax);
  const bool whole = count == kNf4Block;
  *absmax = whole ? largest : divisor;
  const float reciprocal = 1.0F / divisor;
  const Vector<float> one = Vector<float>{} + 1.0F;
  for (std::int64_t i = 0; i < count; i += kWidth) {
    Vector<float> v = Load(x + i, count - i);
    v = whole ? v * reciprocal : v / divisor;
    v = v > one ? one : v;
    v = v < -one ? -one : v;
    const Ints index = Nearest(v, midpoints);
    const std::int64_t bytes = (std::min(count - i, kWidth) + 1) / 2;
    for (std::int64_t b = 0; b < bytes; ++b) {
      packed[i / 2 + b] = static_cast<std::uint8_t>(index[2 * b] << 4 | index[2 * b + 1]);
    }
  }
}

PLURAL_CLONES void QuantizeBlocks(const float* x, std::int64_t count, const std::array<float, 15>& midpoints,
                                  std::uint8_t* packed, float* absmax) {
  for (std::int64_t i = 0; i < count; i += kNf4Block) {
    QuantizeBlock(x + i, std::min(kNf4Block, count - i), midpoints, packed + i / 2, absmax + i / kNf4Block);
  }
}

}  // namespace

std::array<float, kAbsmaxLevels> DynamicMap() {
  constexpr int kExponents = 7;
  std::array<float, kAbsmaxLevels> map{};
  std::size_t next = 0;
  map[next++] = 0.0F;
  map[next++] = 1.0F;
  for (int exponent = 0; exponent < kExponents; ++exponent) {
    // Middles of 2^exponent equal parts of [0.1, 1]; the ends as torch.linspace computes them, counted from
    // the nearer side with a fused multiply-add.
    const int parts = 1 << exponent;
    const float step = (1.0F - 0.1F) / static_cast<float>(parts);
    const auto edge = [parts, step](int i) {
      return i < (parts + 1) / 2 ? std::fma(step, static_cast<float>(i), 0.1F)
                                 : std::fma(-step, static_cast<float>(parts - i), 1.0F);
    };
    const auto scale = static_cast<float>(std::pow(10.0, exponent - (kExponents - 1)));
    for (int i = 0; i < parts; ++i) {
      const float value = scale * ((edge(i) + edge(i + 1)) / 2.0F);
      map[next++] = value;
      map[next++] = -value;
    }
  }
  std::sort(map.begin(), map.end());
  return map;
}

PLURAL_CLONES void DequantizeNf4(const Nf4View& weight, std::int64_t begin, std::int64_t end, float* out) {
  DequantizeLoop(weight, begin, end, out);
}
PLURAL_CLONES void DequantizeNf4(const Nf4View& weight, std::int64_t begin, std::int64_t end, double* out) {
  DequantizeLoop(weight, begin, end, out);
}
PLURAL_CLONES void DequantizeNf4(const Nf4View& weight, std::int64_t begin, std::int64_t end,
                                 c10::BFloat16* out) {
  DequantizeLoop(weight, begin, end, out);
}

void QuantizeNf4(const float* x, std::int64_t count, std::uint8_t* packed, float* absmax) {
  QuantizeBlocks(x, count, Midpoints(), packed, absmax);
}

// bitsandbytes looks codes up in a table of 65536 equal steps of [-1, 1], which does not always
// give the nearest one.
void QuantizeAbsmax(const float* x, std::int64_t count, std::uint8_t* codes, float* nested) {
  constexpr int kSteps = 65536;
  const std::array<float, kAbsmaxLevels> map = DynamicMap();
  std::vector<std::uint8_t> code_of_step(kSteps);
  std::size_t code = 0;
  for (int step = 0; step < kSteps; ++step) {
    const float value = -1.0F + 2.0F * static_cast<float>(step) / static_cast<float>(kSteps - 1);
    while (code + 1 < map.size() && 0.5F * (map[code] + map[code + 1]) < value) ++code;
    code_of_step[static_cast<std::size_t>(step)] = static_cast<std::uint8_t>(code);
  }
  for (std::int64_t begin = 0; begin < count; begin += kAbsmaxBlock) {
    const std::int64_t end = std::min(count, begin + kAbsmaxBlock);
    float largest = 0.0F;
    for (std::int64_t i = begin; i < end; ++i) largest = std::max(largest, std::fabs(x[i]));
    nested[begin / kAbsmaxBlock] = largest;
    const float reciprocal = 1.0F / largest;
    for (std::int64_t i = begin; i < end; ++i) {
      const float value = std::clamp(x[i] * reciprocal, -1.0F, 1.0F);
      const float step = (value + 1.0F) * 0.5F * static_cast<float>(kSteps - 1) + 0.5F;
      // Where the reciprocal overflows, 0 times it is NaN.
      const bool usable = largest > 0.0F && step >= 0.0F;
      codes[i] = usable ? code_of_step[static_cast<std::size_t>(step)] : std::uint8_t{0};
    }
  }
}

}  // namespace plural::trainer::host
