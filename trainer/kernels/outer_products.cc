#include "trainer/kernels/outer_products.h"

#include <algorithm>
#include <vector>

#include "trainer/kernels/host_vectors.h"

namespace plural::trainer::host {
namespace {

// Rows of y in one tile: two sums each, in 24 of the 32 registers of AVX-512.
constexpr std::int64_t kTile = 12;

// Row pairs of a, [ceil(rows / 2), width_a]: a[2 p, j] in a word's lower half, a[2 p + 1, j] above.
std::vector<std::uint32_t> PairRows(const c10::BFloat16* a, const OuterProductShape& shape) {
  const std::int64_t width = shape.width_a;
  std::vector<std::uint32_t> pairs(static_cast<std::size_t>((shape.rows + 1) / 2 * width));
  for (std::int64_t r = 0; r < shape.rows; ++r) {
    std::uint32_t* to = pairs.data() + r / 2 * width;
    for (std::int64_t j = 0; j < width; ++j)
      to[j] |= static_cast<std::uint32_t>(a[r * width + j].x) << r % 2 * 16;
  }
  return pairs;
}

// Computes `tile` rows of y and kPairs of its columns, or `count` if that is less. The even columns
// of two rows of b make one vector of pairs, the odd columns another.
template <class Products, int tile>
PLURAL_INLINE void Tile(const std::uint32_t* pairs, const c10::BFloat16* b, const OuterProductShape& shape,
                        std::int64_t count, float* y) {
  Vector<float> even[tile] = {}, odd[tile] = {};
  for (std::int64_t r = 0; r < shape.rows; r += 2) {
    const Words first = LoadPairs(b + r * shape.stride, count);
    const Words second = r + 1 < shape.rows ? LoadPairs(b + (r + 1) * shape.stride, count) : Words{};
    const Words evens = (first & 0xffffU) | (second << 16);
    const Words odds = (first >> 16) | (second & 0xffff0000U);
    const std::uint32_t* pair = pairs + r / 2 * shape.width_a;
#pragma GCC unroll 12
    for (int j = 0; j < tile; ++j) {
      const Words both = Words{} + pair[j];
      Products::Add(even[j], both, evens);
      Products::Add(odd[j], both, odds);
    }
  }
#pragma GCC unroll 12
  for (int j = 0; j < tile; ++j) {
    constexpr std::int64_t kHalf = kPairs / 2;
    const Vector<float> low =
        __builtin_shufflevector(even[j], odd[j], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const Vector<float> high = __builtin_shufflevector(even[j], odd[j], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28,
                                                       13, 29, 14, 30, 15, 31);
    Store(y + j * shape.stride, low, count);
    if (count > kHalf) Store(y + j * shape.stride + kHalf, high, count - kHalf);
  }
}

template <class Products>
PLURAL_INLINE void OuterProductsLoop(const std::uint32_t* pairs, const c10::BFloat16* b,
                                     const OuterProductShape& shape, float* y) {
  for (std::int64_t i = 0; i < shape.width_b; i += kPairs) {
    const std::int64_t count = std::min(kPairs, shape.width_b - i);
    std::int64_t j = 0;
    for (; j + kTile <= shape.width_a; j += kTile) {
      Tile<Products, kTile>(pairs + j, b + i, shape, count, y + j * shape.stride + i);
    }
    for (; j + 4 <= shape.width_a; j += 4) {
      Tile<Products, 4>(pairs + j, b + i, shape, count, y + j * shape.stride + i);
    }
    for (; j < shape.width_a; ++j) {
      Tile<Products, 1>(pairs + j, b + i, shape, count, y + j * shape.stride + i);
    }
  }
}

PLURAL_CLONES void Version(const std::uint32_t* pairs, const c10::BFloat16* b, const OuterProductShape& shape,
                           float* y) {
  OuterProductsLoop<PairProducts>(pairs, b, shape, y);
}
#ifdef PLURAL_VERSIONS
PLURAL_AVX512 void NativeVersion(const std::uint32_t* pairs, const c10::BFloat16* b,
                                 const OuterProductShape& shape, float* y) {
  OuterProductsLoop<NativePairProducts>(pairs, b, shape, y);
}
#endif

}  // namespace

void OuterProducts(const c10::BFloat16* a, const c10::BFloat16* b, const OuterProductShape& shape, float* y) {
  const std::vector<std::uint32_t> pairs = PairRows(a, shape);
#ifdef PLURAL_VERSIONS
  if (HasNativePairProducts()) return NativeVersion(pairs.data(), b, shape, y);
#endif
  Version(pairs.data(), b, shape, y);
}

}  // namespace plural::trainer::host
