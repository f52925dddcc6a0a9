// Attention of a token tree on a GPU: the forward kernel's source, and what it shares with backward.
//
// Owns: the work of one block. Does not own: products of tiles (fragments.h), the gradients
// (tree_attention_backward.h), launches (tree_attention.cu). Thread rule: all threads of a block call.
//
// A block goes over the key tiles that its queries see, with an online softmax: the largest logit so far and
// the sum of exponentials below it; when a larger one comes, sum and output are scaled. Logits are in units
// of ln 2, so that exponentials are powers of 2. Sums are fp32; probabilities are rounded to the type of v
// for their product with it. The order of all sums depends on the tree alone: the same bits each time.
#pragma once

#include "trainer/kernels/cuda/fragments.h"
#include "trainer/kernels/cuda/tree_blocks.h"

namespace plural::trainer::gpu {

// A head's logit, in units of ln 2, of a product; its slope by the product, in units of 1.
struct Logits {
  float factor, cap, inverse_cap;  // cap 0: none

  PLURAL_DEVICE explicit Logits(const TreeAttentionArguments& a)
      : factor(a.softcap > 0 ? a.scale / a.softcap : a.scale * kLog2E),
        cap(a.softcap > 0 ? a.softcap * kLog2E : 0),
        inverse_cap(a.softcap > 0 ? 1 / (a.softcap * kLog2E) : 0) {}

  PLURAL_DEVICE float Of(float product) const {
    return cap > 0 ? cap * Tanh(product * factor) : product * factor;
  }
  PLURAL_DEVICE float Slope(float logit, float scale) const {
    const float bounded = logit * inverse_cap;
    return scale * (1 - bounded * bounded);
  }
};

PLURAL_DEVICE bool Sees(const TreeAttentionArguments& a, int query, int query_position, int key, int end,
                        int key_position) {
  return key <= query && query < end && (a.window == 0 || query_position - key_position < a.window);
}

// What a row of the tree is to others; a row behind the last one sees nothing and is not seen.
PLURAL_DEVICE int EndOf(const TreeAttentionArguments& a, int row) { return row < a.rows ? a.end[row] : 0; }
PLURAL_DEVICE int PositionOf(const TreeAttentionArguments& a, int row) {
  return a.window > 0 && row < a.rows ? a.position[row] : 0;
}

// The rows of a block of queries: a warp has 16 queries of one head.
struct QueryRows {
  int first_query, first_head, heads_per_block;

  PLURAL_DEVICE QueryRows(const TreeAttentionArguments& a, int warps, int block, int head_block) {
    const int sharing = a.heads / a.shared_heads;
    heads_per_block = warps;
    while (sharing % heads_per_block != 0) heads_per_block /= 2;
    first_query = block * (16 * warps / heads_per_block);
    first_head = head_block * heads_per_block;
  }
  PLURAL_DEVICE int Head(int row) const { return first_head + row / 16 % heads_per_block; }
  PLURAL_DEVICE int Query(int row) const { return first_query + row / 16 / heads_per_block * 16 + row % 16; }
  // The row of this lane's value i of an accumulator.
  PLURAL_DEVICE int QueryOfLane(int thread, int half) const {
    return Query(16 * WarpOf(thread) + RowOfLane(thread) + 8 * half);
  }
  PLURAL_DEVICE int HeadOfLane(int thread) const { return Head(16 * WarpOf(thread)); }

  // Where row `row` of x [rows, heads, dim] begins; null behind the last.
  template <class E>
  PLURAL_DEVICE const E* At(const TreeAttentionArguments& a, const void* x, std::int64_t row_stride,
                            std::int64_t head_stride, int row) const {
    const int query = Query(row);
    return query < a.rows ? static_cast<const E*>(x) + query * row_stride + Head(row) * head_stride : nullptr;
  }
};

template <class E>
PLURAL_DEVICE const E* KeyAt(const TreeAttentionArguments& a, const void* x, std::int64_t row_stride,
                             std::int64_t head_stride, int key, int shared_head) {
  return key < a.rows ? static_cast<const E*>(x) + key * row_stride + shared_head * head_stride : nullptr;
}

// Ends and positions of a tile's keys go beside its rows, for tiles that are seen in part.
template <class E, int kWidth, class Block>
PLURAL_DEVICE void StoreKeys(Block& block, const TreeAttentionArguments& a, int tile, int first_key,
                             int keys) {
  block.Each([&](int thread, auto&) {
    if (thread >= keys) return;
    block.Store(thread, WordOfRow<E, kWidth>(tile, thread, 0), EndOf(a, first_key + thread));
    block.Store(thread, WordOfRow<E, kWidth>(tile, thread, 1), PositionOf(a, first_key + thread));
  });
}
template <class E, int kWidth, class Block>
PLURAL_DEVICE bool SeesKey(Block& block, const TreeAttentionArguments& a, int tile, int thread, int query,
                           int query_position, int first_key, int key) {
  return Sees(a, query, query_position, first_key + key,
              block.template Load<int>(thread, WordOfRow<E, kWidth>(tile, key, 0)),
              block.template Load<int>(thread, WordOfRow<E, kWidth>(tile, key, 1)));
}

// A pair of values of a row goes to x [rows, heads, dim], unless it is behind the last column.
template <class E>
PLURAL_DEVICE void StorePair(void* x, std::int64_t row, int dim, int column, float first, float second) {
  if (column >= dim) return;
  Pair<E> pair;
  Join(first, second, &pair);
  StoreValue(pair, static_cast<E*>(x) + row * dim + column);
}

template <class E, int kWidth>
struct TreeForward {
  static constexpr bool kFp32 = sizeof(E) == 4;
  static constexpr int kWarps = TreeWarps(kFp32), kThreads = 32 * kWarps, kRows = 16 * kWarps;
  static constexpr int kKeys = TreeKeys(kFp32, kWidth);
  static_assert(kKeys <= kThreads);
  // Shared memory.
  static constexpr int kQ = 0, kK = TileBytes<E>(kRows, kWidth), kV = kK + TileBytes<E>(kKeys, kWidth);
  static constexpr int kBytes = kV + TileBytes<E>(kKeys, kWidth);

  struct Registers {
    Pair<E> a[4], b[4];
    float s[kKeys / 8][4], out[kWidth / 8][4];
    // For rows g and g + 8: the largest logit so far, the largest of this tile, this lane's part of the sum.
    float largest[2], top[2], sum[2];
  };

  template <class Block>
  static PLURAL_DEVICE void Run(Block& block, const TreeAttentionArguments& a, int index, int head_block) {
    const QueryRows rows(a, kWarps, index, head_block);
    const int shared_head = rows.first_head / (a.heads / a.shared_heads);
    const int begin = a.keys_of_queries.first[index], end = a.keys_of_queries.first[index + 1];
    const auto copy_keys = [&](int tile, const void* x, std::int64_t row, std::int64_t head, int number) {
      CopyTile<E, kKeys, kWidth, kThreads>(block, tile, a.dim, [&](int key) {
        return KeyAt<E>(a, x, row, head, number * kKeys + key, shared_head);
      });
    };
    CopyTile<E, kRows, kWidth, kThreads>(
        block, kQ, a.dim, [&](int row) { return rows.template At<E>(a, a.q, a.q_row, a.q_head, row); });
    if (begin < end) copy_keys(kK, a.k, a.k_row, a.k_head, a.keys_of_queries.tile[begin] / 2);
    block.Each([&](int, Registers& r) {
      PLURAL_UNROLL
      for (int j = 0; j < kWidth / 8; ++j) r.out[j][0] = r.out[j][1] = r.out[j][2] = r.out[j][3] = 0;
      r.largest[0] = r.largest[1] = MinusInfinity();
      r.sum[0] = r.sum[1] = 0;
    });
    for (int i = begin; i < end; ++i) {
      const int number = a.keys_of_queries.tile[i] / 2;
      const bool masked = a.keys_of_queries.tile[i] % 2 != 0;
      block.WaitCopies();
      block.Sync();  // keys are there, and nobody reads the last values any more
      copy_keys(kV, a.v, a.v_row, a.v_head, number);
      if (masked) StoreKeys<E, kWidth>(block, a, kV, number * kKeys, kKeys);
      block.Each([&](int, Registers& r) {
        PLURAL_UNROLL
        for (int j = 0; j < kKeys / 8; ++j) r.s[j][0] = r.s[j][1] = r.s[j][2] = r.s[j][3] = 0;
      });
      MultiplyRows<E, kWidth, kKeys>(block, kQ, kK, [](Registers& r) { return r.s; });
      block.WaitCopies();
      block.Sync();  // values are there, and nobody reads the keys any more
      if (i + 1 < end) copy_keys(kK, a.k, a.k_row, a.k_head, a.keys_of_queries.tile[i + 1] / 2);
      Softmax(block, a, rows, number * kKeys, masked);
      MultiplyAccumulator<E, kKeys, kWidth, kWidth>(
          block, [](Registers& r) { return r.s; }, kV, 0, [](Registers& r) { return r.out; });
    }
    Finish(block, a, rows);
  }

 private:
  // Products become exponentials, and what came before is scaled to the new largest logit.
  template <class Block>
  static PLURAL_DEVICE void Softmax(Block& block, const TreeAttentionArguments& a, const QueryRows& rows,
                                    int first_key, bool masked) {
    const Logits logits(a);
    block.Each([&](int thread, Registers& r) {
      PLURAL_UNROLL
      for (int half = 0; half < 2; ++half) {
        const int query = rows.QueryOfLane(thread, half);
        const int position = masked ? PositionOf(a, query) : 0;
        float top = MinusInfinity();
        PLURAL_UNROLL
        for (int j = 0; j < kKeys / 8; ++j) {
          PLURAL_UNROLL
          for (int e = 0; e < 2; ++e) {
            float& s = r.s[j][2 * half + e];
            s = logits.Of(s);
            const int key = 8 * j + ColumnOfLane(thread) + e;
            if (masked && !SeesKey<E, kWidth>(block, a, kV, thread, query, position, first_key, key))
              s = MinusInfinity();
            top = s > top ? s : top;
          }
        }
        r.top[half] = top;
      }
    });
    PLURAL_UNROLL
    for (int half = 0; half < 2; ++half) {
      block.QuadMax([half](Registers& r) -> float& { return r.top[half]; });
    }
    block.Each([&](int, Registers& r) {
      PLURAL_UNROLL
      for (int half = 0; half < 2; ++half) {
        const float largest = r.top[half] > r.largest[half] ? r.top[half] : r.largest[half];
        const float base = largest == MinusInfinity() ? 0 : largest;  // a row that has seen nothing yet
        const float factor = Exp2(r.largest[half] - base);
        r.largest[half] = largest;
        float sum = r.sum[half] * factor;
        PLURAL_UNROLL
        for (int j = 0; j < kKeys / 8; ++j) {
          PLURAL_UNROLL
          for (int e = 0; e < 2; ++e) {
            float& s = r.s[j][2 * half + e];
            s = Exp2(s - base);
            sum += s;
          }
        }
        r.sum[half] = sum;
        PLURAL_UNROLL
        for (int j = 0; j < kWidth / 8; ++j) {
          r.out[j][2 * half] *= factor;
          r.out[j][2 * half + 1] *= factor;
        }
      }
    });
  }

  template <class Block>
  static PLURAL_DEVICE void Finish(Block& block, const TreeAttentionArguments& a, const QueryRows& rows) {
    PLURAL_UNROLL
    for (int half = 0; half < 2; ++half) {
      block.QuadSum([half](Registers& r) -> float& { return r.sum[half]; });
    }
    block.Each([&](int thread, Registers& r) {
      PLURAL_UNROLL
      for (int half = 0; half < 2; ++half) {
        const int query = rows.QueryOfLane(thread, half), head = rows.HeadOfLane(thread);
        if (query >= a.rows) continue;
        const float inverse = 1 / r.sum[half];
        PLURAL_UNROLL
        for (int j = 0; j < kWidth / 8; ++j) {
          StorePair<E>(a.out, static_cast<std::int64_t>(query) * a.heads + head, a.dim,
                       8 * j + ColumnOfLane(thread), r.out[j][2 * half] * inverse,
                       r.out[j][2 * half + 1] * inverse);
        }
        if (thread % 4 == 0) {
          a.lse[static_cast<std::int64_t>(head) * a.rows + query] =
              (r.largest[half] + Log2(r.sum[half])) * kLn2;
        }
      }
    });
  }
};

}  // namespace plural::trainer::gpu
