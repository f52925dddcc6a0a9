// Small matrix products of a warp: 16 rows times 16 deep times 8 columns, operands from shared memory.
//
// Owns: which value of a matrix lies in which lane (that of mma.m16n8k16), loading operands from tiles in
// shared memory, products of tiles. Does not own: the instructions (block.h; in tests an emulation of a
// block, which runs this same source on the host). Thread rule: all threads of a block call.
//
// A Block is what a kernel's source is written against. Registers of a thread are one struct, which has `a`
// and `b`, the operands of a product. It has
// * Each(f): f(thread, registers) for the threads of the block;
// * Sync(): a barrier of the block;
// * Load<T>, Store: shared memory, by byte offset;
// * CopyAsync, WaitCopies: 16 bytes from global to shared memory; the calling thread's copies are there;
// * Matrices<transposed>(f): f(thread, registers) says where a row of 8 bf16 lies and where to put four 8 x 8
//   matrices;
// * Multiply(f): c += a b with the operands that f(registers) names;
// * QuadMax(f), QuadSum(f): over the four lanes that share rows, in f(registers); WarpSum(f): over all 32.
//
// Lane = 4 g + t. A [16, 16] has in pair i row g + 8 (i % 2), columns 2 t + 8 (i / 2) and the next. B [16, 8]
// has in pair i column g, rows 2 t + 8 i and the next. C [16, 8] has in value i row g + 8 (i / 2), column 2 t
// + i % 2.
#pragma once

#include "trainer/kernels/cuda/numbers.h"

namespace plural::trainer::gpu {

// Tiles have rows of `width` values and 8 more, so that eight rows start in different banks.
template <int kWidth>
constexpr int kPitchOf = kWidth + 8;
template <class E>
constexpr int TileBytes(int rows, int width) {
  return rows * (width + 8) * static_cast<int>(sizeof(E));
}
// Where those 8 hold words that belong to the row, 0 to 3.
template <class E, int kWidth>
PLURAL_DEVICE int WordOfRow(int tile, int row, int word) {
  return tile + static_cast<int>(sizeof(E)) * (row * kPitchOf<kWidth> + kWidth) + 4 * word;
}

PLURAL_DEVICE int WarpOf(int thread) { return thread / 32; }
PLURAL_DEVICE int RowOfLane(int thread) { return thread % 32 / 4; }    // g
PLURAL_DEVICE int ColumnOfLane(int thread) { return thread % 4 * 2; }  // 2 t

struct MatrixLoad {
  int offset;  // of the row that this lane names: row lane % 8 of matrix lane / 8
  std::uint32_t* to;
};
template <class E>
struct Operands {
  float* c;          // [4]
  const Pair<E>* a;  // [4]
  const Pair<E>* b;  // [2]
};

// The fp32 product, for which there is no such instruction: values come from their lanes one by one.
// from_a(i, lane) and from_b(i, lane) are pairs of other lanes.
template <class FromA, class FromB>
PLURAL_DEVICE void MultiplyByLanes(int lane, float* c, const FromA& from_a, const FromB& from_b) {
  PLURAL_UNROLL
  for (int half = 0; half < 2; ++half) {
    PLURAL_ROLLED  // a kernel has hundreds of these
        for (int t = 0; t < 4; ++t) {
      const FloatPair upper = from_a(2 * half, lane / 4 * 4 + t),
                      lower = from_a(2 * half + 1, lane / 4 * 4 + t);
      const int column = lane % 4 * 2;
      const FloatPair left = from_b(half, 4 * column + t), right = from_b(half, 4 * column + 4 + t);
      c[0] += upper.first * left.first + upper.second * left.second;
      c[1] += upper.first * right.first + upper.second * right.second;
      c[2] += lower.first * left.first + lower.second * left.second;
      c[3] += lower.first * right.first + lower.second * right.second;
    }
  }
}

template <class E>
struct Fragments;

template <>
struct Fragments<Bf16> {
  // a = rows 16 * warp + .., columns `column` + .. of the tile.
  template <int kPitch, class Block>
  static PLURAL_DEVICE void Left(Block& block, int tile, int column) {
    block.template Matrices<false>([&](int thread, auto& r) {
      const int lane = thread % 32, row = 16 * WarpOf(thread) + lane % 16;
      return MatrixLoad{tile + 2 * (row * kPitch + column + 8 * (lane / 16)), r.a};
    });
  }
  // b = two operands, the transposed of 16 rows and 16 columns of the tile: its rows are columns of the
  // product.
  template <int kPitch, class Block>
  static PLURAL_DEVICE void RightOfRows(Block& block, int tile, int row, int column) {
    block.template Matrices<false>([&](int thread, auto& r) {
      const int lane = thread % 32;
      return MatrixLoad{
          tile + 2 * ((row + lane % 8 + 8 * (lane / 16)) * kPitch + column + 8 * (lane / 8 % 2)), r.b};
    });
  }
  // b = two operands, 16 rows and 16 columns of the tile as they are.
  template <int kPitch, class Block>
  static PLURAL_DEVICE void Right(Block& block, int tile, int row, int column) {
    block.template Matrices<true>([&](int thread, auto& r) {
      const int lane = thread % 32;
      return MatrixLoad{tile + 2 * ((row + lane % 16) * kPitch + column + 8 * (lane / 16)), r.b};
    });
  }
};

template <>
struct Fragments<float> {
  template <int kPitch, class Block>
  static PLURAL_DEVICE void Left(Block& block, int tile, int column) {
    block.Each([&](int thread, auto& r) {
      const int row = 16 * WarpOf(thread) + RowOfLane(thread);
      PLURAL_UNROLL
      for (int i = 0; i < 4; ++i) {
        const int at = (row + 8 * (i % 2)) * kPitch + column + ColumnOfLane(thread) + 8 * (i / 2);
        r.a[i] = block.template Load<FloatPair>(thread, tile + 4 * at);
      }
    });
  }
  template <int kPitch, class Block>
  static PLURAL_DEVICE void RightOfRows(Block& block, int tile, int row, int column) {
    block.Each([&](int thread, auto& r) {
      PLURAL_UNROLL
      for (int i = 0; i < 4; ++i) {
        const int of_row = row + RowOfLane(thread) + 8 * (i / 2);
        const int at = of_row * kPitch + column + ColumnOfLane(thread) + 8 * (i % 2);
        r.b[i] = block.template Load<FloatPair>(thread, tile + 4 * at);
      }
    });
  }
  template <int kPitch, class Block>
  static PLURAL_DEVICE void Right(Block& block, int tile, int row, int column) {
    block.Each([&](int thread, auto& r) {
      PLURAL_UNROLL
      for (int i = 0; i < 4; ++i) {
        const int of_row = row + ColumnOfLane(thread) + 8 * (i % 2);
        const int at = of_row * kPitch + column + RowOfLane(thread) + 8 * (i / 2);
        r.b[i] = {block.template Load<float>(thread, tile + 4 * at),
                  block.template Load<float>(thread, tile + 4 * (at + kPitch))};
      }
    });
  }
};

template <class E, class Block, class Accumulator>
PLURAL_DEVICE void MultiplyTwo(Block& block, int column, const Accumulator& c) {
  block.template Multiply<E>([&](auto& r) { return Operands<E>{c(r)[column / 8], r.a, r.b}; });
  block.template Multiply<E>([&](auto& r) { return Operands<E>{c(r)[column / 8 + 1], r.a, r.b + 2}; });
}

// c(registers) [kColumns / 8][4] += 16 rows of tile `left` per warp times all rows of tile `right`, over
// their width.
template <class E, int kWidth, int kColumns, class Block, class Accumulator>
PLURAL_DEVICE void MultiplyRows(Block& block, int left, int right, const Accumulator& c) {
  constexpr int kPitch = kPitchOf<kWidth>;
  PLURAL_ROLLED
  for (int k = 0; k < kWidth; k += 16) {
    Fragments<E>::template Left<kPitch>(block, left, k);
    PLURAL_UNROLL
    for (int n = 0; n < kColumns; n += 16) {
      Fragments<E>::template RightOfRows<kPitch>(block, right, n, k);
      MultiplyTwo<E>(block, n, c);
    }
  }
}

// c += x, an accumulator of [16, kDepth] per warp that is rounded to E, times columns of a tile of kDepth
// rows.
template <class E, int kDepth, int kWidth, int kColumns, class Block, class Left, class Accumulator>
PLURAL_DEVICE void MultiplyAccumulator(Block& block, const Left& x, int right, int first_column,
                                       const Accumulator& c) {
  constexpr int kPitch = kPitchOf<kWidth>;
  PLURAL_UNROLL
  for (int k = 0; k < kDepth; k += 16) {
    block.Each([&](int, auto& r) {
      PLURAL_UNROLL
      for (int i = 0; i < 4; ++i) {
        const float* from = x(r)[k / 8 + i / 2] + 2 * (i % 2);
        Join(from[0], from[1], &r.a[i]);
      }
    });
    PLURAL_UNROLL
    for (int n = 0; n < kColumns; n += 16) {
      Fragments<E>::template Right<kPitch>(block, right, k, first_column + n);
      MultiplyTwo<E>(block, n, c);
    }
  }
}

// Rows of a matrix in global memory become a tile; zero where row_at(row) is null and behind `dim` columns, a
// multiple of 8. They are there after WaitCopies.
template <class E, int kRows, int kWidth, int kThreads, class Block, class RowAt>
PLURAL_DEVICE void CopyTile(Block& block, int tile, int dim, const RowAt& row_at) {
  constexpr int kValues = 16 / static_cast<int>(sizeof(E)), kPieces = kWidth / kValues,
                kPitch = kPitchOf<kWidth>;
  static_assert(kRows * kPieces % kThreads == 0);
  block.Each([&](int thread, auto&) {
    PLURAL_UNROLL
    for (int i = 0; i < kRows * kPieces / kThreads; ++i) {
      const int piece = i * kThreads + thread, row = piece / kPieces, column = piece % kPieces * kValues;
      const E* from = column < dim ? row_at(row) : nullptr;
      block.CopyAsync(thread, tile + static_cast<int>(sizeof(E)) * (row * kPitch + column),
                      from == nullptr ? nullptr : from + column);
    }
  });
}

}  // namespace plural::trainer::gpu
