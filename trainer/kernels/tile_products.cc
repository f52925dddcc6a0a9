#include "trainer/kernels/tile_products.h"

#include <ATen/native/CPUBlas.h>
#include <c10/core/ScalarType.h>

#include <array>

#include "trainer/kernels/host_vectors.h"

namespace plural::trainer::host {
namespace {

// One value of A times a row of B.
template <class T>
struct Single {
  static constexpr std::int64_t kDepth = 1;
  static PLURAL_INLINE Vector<T> Add(const Vector<T>& sum, const T* a, const T* b, std::int64_t count) {
    return sum + a[0] * Load(b, count);
  }
};
// Two values of A times a row of pairs.
struct Pair {
  static constexpr std::int64_t kDepth = 2;
  static PLURAL_INLINE Vector<float> Add(Vector<float> sum, const c10::BFloat16* a, const c10::BFloat16* b,
                                         std::int64_t count) {
    std::uint32_t pair;
    std::memcpy(&pair, a, sizeof pair);
    PairProducts::Add(sum, Words{} + pair, LoadPairs(b, 2 * count));
    return sum;
  }
};

template <class Product, class E, class T>
PLURAL_INLINE void Loop(const E* a, const E* b, const TileShape& shape, T* c) {
  constexpr std::int64_t kWidth = Lanes<T>::kWidth;
  for (std::int64_t row = 0; row < shape.rows; ++row) {
    for (std::int64_t column = 0; column < shape.columns; column += kWidth) {
      T* out = c + row * shape.c_stride + column;
      const std::int64_t count = shape.columns - column;
      Vector<T> sum = shape.add ? Load(out, count) : Vector<T>{};
      for (std::int64_t i = 0; i < shape.depth; i += Product::kDepth) {
        sum = Product::Add(sum, a + row * shape.a_stride + i,
                           b + i * shape.b_stride + Product::kDepth * column, count);
      }
      Store(out, sum, count);
    }
  }
}

template <class E>
void Generated(const E* a, const E* b, const TileShape& shape, float* c) {
  at::native::cpublas::brgemm(shape.rows, shape.columns, shape.depth, shape.a_stride, shape.b_stride,
                              shape.c_stride, shape.add, a, b, c);
}

// ATen reports only by an exception that a processor, or a build, has no kernel for a dtype.
template <class E>
bool CanGenerate() {
  static const bool can = [] {
    constexpr std::int64_t kSize = 16;
    const std::array<E, kSize * kSize> zeros{};
    std::array<float, kSize * kSize> c{};
    try {
      Generated(zeros.data(), zeros.data(), {kSize, kSize, kSize, kSize, kSize, kSize}, c.data());
      at::native::cpublas::brgemm_release();
      return true;
    } catch (const std::exception&) {
      return false;
    }
  }();
  return can;
}

}  // namespace

PLURAL_CLONES void TileProductLoop(const float* a, const float* b, const TileShape& shape, float* c) {
  Loop<Single<float>>(a, b, shape, c);
}
PLURAL_CLONES void TileProductLoop(const c10::BFloat16* a, const c10::BFloat16* b, const TileShape& shape,
                                   float* c) {
  Loop<Pair>(a, b, shape, c);
}

void TileProduct(const float* a, const float* b, const TileShape& shape, float* c) {
  CanGenerate<float>() ? Generated(a, b, shape, c) : TileProductLoop(a, b, shape, c);
}
void TileProduct(const c10::BFloat16* a, const c10::BFloat16* b, const TileShape& shape, float* c) {
  CanGenerate<c10::BFloat16>() ? Generated(a, b, shape, c) : TileProductLoop(a, b, shape, c);
}
void TileProduct(const double* a, const double* b, const TileShape& shape, double* c) {
  Loop<Single<double>>(a, b, shape, c);  // for tests and exactness, not for speed
}

// ATen offers to pack bf16 for those processors only.
bool HasTileRegisters() { return at::native::cpublas::could_pack(at::kBFloat16); }

void ReleaseTileRegisters() {
  if (CanGenerate<float>() || CanGenerate<c10::BFloat16>()) at::native::cpublas::brgemm_release();
}

}  // namespace plural::trainer::host
