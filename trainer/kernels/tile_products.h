// Tile products: C = A B, or C += A B, of tiles that fit into a cache, on the CPU.
//
// Owns: the choice of the kernel: oneDNN's, generated when a shape first occurs (called through
// ATen, which links it), or a loop where the processor has none. Does not own: how tiles are cut
// and packed (tree_attention.cc). Thread rule: pure functions; each thread has its own kernels.
#pragma once

#include <c10/util/BFloat16.h>

#include <cstdint>

namespace plural::trainer::host {

// The most rows and columns of a tile, and the unit of its parts: a vector of fp32.
constexpr std::int64_t kTileSide = 64, kStrip = 16;
constexpr std::int64_t WholeStrips(std::int64_t count) { return (count + kStrip - 1) / kStrip * kStrip; }

// C [rows, columns], A [rows, depth], B [depth, columns]; rows of each are `*_stride` values apart. Few
// distinct shapes should be used: a kernel takes some 0.1 ms to generate.
struct TileShape {
  std::int64_t rows = 0, columns = 0, depth = 0;
  std::int64_t a_stride = 0, b_stride = 0, c_stride = 0;
  bool add = false;
};
void TileProduct(const float* a, const float* b, const TileShape& shape, float* c);
void TileProduct(const double* a, const double* b, const TileShape& shape, double* c);
// Sums are fp32. B is in pairs, [depth / 2, b_stride, 2]: two values of one column side by side, then those
// of the next column. `depth` must be even.
void TileProduct(const c10::BFloat16* a, const c10::BFloat16* b, const TileShape& shape, float* c);

// The loops alone, for tests and for processors without a kernel.
void TileProductLoop(const float* a, const float* b, const TileShape& shape, float* c);
void TileProductLoop(const c10::BFloat16* a, const c10::BFloat16* b, const TileShape& shape, float* c);

// True when the processor multiplies tiles of bf16 in tile registers (AMX), several times as fast
// as in its vectors.
bool HasTileRegisters();

// Releases this thread's tile registers, where the processor has them. Call it after the last
// product of a series.
void ReleaseTileRegisters();

}  // namespace plural::trainer::host
