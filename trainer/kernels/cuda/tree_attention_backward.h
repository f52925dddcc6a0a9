// The gradients of attention of a token tree on a GPU: two kernels' source.
//
// Owns: the work of one block of each. Does not own: the forward kernel and what is shared with it
// (tree_attention.h). Thread rule: all threads of a block call.
//
// Probabilities come again from products and lse. With ds = p (dp - delta) slope: dq = ds k by blocks of
// queries, dk = ds^T q and dv = p^T dout by blocks of keys, each in registers of one block. So nothing is
// added in memory, and the order of all sums depends on the tree alone. p and ds are rounded to the inputs'
// type for their products.
#pragma once

#include "trainer/kernels/cuda/tree_attention.h"

namespace plural::trainer::gpu {

// p and its logit's gradient by the product of a query and a key: s and dp become them.
PLURAL_DEVICE void ScoreGradient(const Logits& logits, float scale, bool visible, float lse_log2, float delta,
                                 float* s, float* dp) {
  const float logit = logits.Of(*s);
  const float p = visible ? Exp2(logit - lse_log2) : 0;
  *s = p;
  *dp = visible ? p * (*dp - delta) * logits.Slope(logit, scale) : 0;
}

template <class E, int kWidth>
struct TreeQueryGradient {
  static constexpr bool kFp32 = sizeof(E) == 4;
  static constexpr int kWarps = TreeWarps(kFp32), kThreads = 32 * kWarps, kRows = 16 * kWarps;
  static constexpr int kKeys = TreeKeys(kFp32, kWidth);
  static constexpr int kQ = 0, kDout = TileBytes<E>(kRows, kWidth), kK = 2 * kDout;
  static constexpr int kV = kK + TileBytes<E>(kKeys, kWidth), kBytes = kV + TileBytes<E>(kKeys, kWidth);

  struct Registers {
    Pair<E> a[4], b[4];
    float s[kKeys / 8][4], dp[kKeys / 8][4], dq[kWidth / 8][4];
    float lse[2], delta[2];  // of rows g and g + 8; lse in units of ln 2
  };

  template <class Block>
  static PLURAL_DEVICE void Run(Block& block, const TreeAttentionArguments& a, int index, int head_block) {
    const QueryRows rows(a, kWarps, index, head_block);
    const int shared_head = rows.first_head / (a.heads / a.shared_heads);
    const std::int64_t head_stride = a.dim, row_stride = head_stride * a.heads;
    CopyTile<E, kRows, kWidth, kThreads>(
        block, kQ, a.dim, [&](int row) { return rows.template At<E>(a, a.q, a.q_row, a.q_head, row); });
    CopyTile<E, kRows, kWidth, kThreads>(block, kDout, a.dim, [&](int row) {
      return rows.template At<E>(a, a.dout, row_stride, head_stride, row);
    });
    Begin(block, a, rows);
    for (int i = a.keys_of_queries.first[index]; i < a.keys_of_queries.first[index + 1]; ++i) {
      const int number = a.keys_of_queries.tile[i] / 2;
      const bool masked = a.keys_of_queries.tile[i] % 2 != 0;
      block.Sync();  // nobody reads the last tile any more
      CopyTile<E, kKeys, kWidth, kThreads>(block, kK, a.dim, [&](int key) {
        return KeyAt<E>(a, a.k, a.k_row, a.k_head, number * kKeys + key, shared_head);
      });
      CopyTile<E, kKeys, kWidth, kThreads>(block, kV, a.dim, [&](int key) {
        return KeyAt<E>(a, a.v, a.v_row, a.v_head, number * kKeys + key, shared_head);
      });
      if (masked) StoreKeys<E, kWidth>(block, a, kV, number * kKeys, kKeys);
      block.Each([&](int, Registers& r) {
        PLURAL_UNROLL
        for (int j = 0; j < kKeys / 8; ++j) {
          r.s[j][0] = r.s[j][1] = r.s[j][2] = r.s[j][3] = 0;
          r.dp[j][0] = r.dp[j][1] = r.dp[j][2] = r.dp[j][3] = 0;
        }
      });
      block.WaitCopies();
      block.Sync();
      MultiplyRows<E, kWidth, kKeys>(block, kQ, kK, [](Registers& r) { return r.s; });
      MultiplyRows<E, kWidth, kKeys>(block, kDout, kV, [](Registers& r) { return r.dp; });
      Gradients(block, a, rows, number * kKeys, masked);
      MultiplyAccumulator<E, kKeys, kWidth, kWidth>(
          block, [](Registers& r) { return r.dp; }, kK, 0, [](Registers& r) { return r.dq; });
    }
    block.Each([&](int thread, Registers& r) {
      PLURAL_UNROLL
      for (int half = 0; half < 2; ++half) {
        const int query = rows.QueryOfLane(thread, half);
        if (query >= a.rows) continue;
        PLURAL_UNROLL
        for (int j = 0; j < kWidth / 8; ++j) {
          StorePair<E>(a.dq, static_cast<std::int64_t>(query) * a.heads + rows.HeadOfLane(thread), a.dim,
                       8 * j + ColumnOfLane(thread), r.dq[j][2 * half], r.dq[j][2 * half + 1]);
        }
      }
    });
  }

 private:
  // lse and delta of the lane's rows, the latter also for the other kernel.
  template <class Block>
  static PLURAL_DEVICE void Begin(Block& block, const TreeAttentionArguments& a, const QueryRows& rows) {
    block.Each([&](int thread, Registers& r) {
      PLURAL_UNROLL
      for (int j = 0; j < kWidth / 8; ++j) r.dq[j][0] = r.dq[j][1] = r.dq[j][2] = r.dq[j][3] = 0;
      PLURAL_UNROLL
      for (int half = 0; half < 2; ++half) {
        const int query = rows.QueryOfLane(thread, half), head = rows.HeadOfLane(thread);
        r.lse[half] = r.delta[half] = 0;
        if (query >= a.rows) continue;
        r.lse[half] = a.lse[static_cast<std::int64_t>(head) * a.rows + query] * kLog2E;
        const std::int64_t at = (static_cast<std::int64_t>(query) * a.heads + head) * a.dim;
        const E *out = static_cast<const E*>(a.out) + at, *dout = static_cast<const E*>(a.dout) + at;
        for (int c = ColumnOfLane(thread); c < a.dim; c += 8) {
          r.delta[half] += ToFloat(out[c]) * ToFloat(dout[c]) + ToFloat(out[c + 1]) * ToFloat(dout[c + 1]);
        }
      }
    });
    PLURAL_UNROLL
    for (int half = 0; half < 2; ++half) {
      block.QuadSum([half](Registers& r) -> float& { return r.delta[half]; });
    }
    block.Each([&](int thread, Registers& r) {
      PLURAL_UNROLL
      for (int half = 0; half < 2; ++half) {
        const int query = rows.QueryOfLane(thread, half);
        if (thread % 4 != 0 || query >= a.rows) continue;
        a.delta[static_cast<std::int64_t>(rows.HeadOfLane(thread)) * a.rows + query] = r.delta[half];
      }
    });
  }

  template <class Block>
  static PLURAL_DEVICE void Gradients(Block& block, const TreeAttentionArguments& a, const QueryRows& rows,
                                      int first_key, bool masked) {
    const Logits logits(a);
    block.Each([&](int thread, Registers& r) {
      PLURAL_UNROLL
      for (int half = 0; half < 2; ++half) {
        const int query = rows.QueryOfLane(thread, half);
        const int position = masked ? PositionOf(a, query) : 0;
        PLURAL_UNROLL
        for (int j = 0; j < kKeys / 8; ++j) {
          PLURAL_UNROLL
          for (int e = 0; e < 2; ++e) {
            const int key = 8 * j + ColumnOfLane(thread) + e;
            const bool visible =
                !masked || SeesKey<E, kWidth>(block, a, kV, thread, query, position, first_key, key);
            ScoreGradient(logits, a.scale, visible, r.lse[half], r.delta[half], &r.s[j][2 * half + e],
                          &r.dp[j][2 * half + e]);
          }
        }
      }
    });
  }
};

// Products are transposed here: rows are keys, columns queries. A block computes kColumns columns of dk and
// dv, which is all that registers hold of wide heads.
template <class E, int kWidth>
struct TreeKeyGradient {
  static constexpr bool kFp32 = sizeof(E) == 4;
  static constexpr int kWarps = TreeWarps(kFp32), kThreads = 32 * kWarps, kRows = 16 * kWarps;
  static constexpr int kQueries = kTreeQueryTile, kMost = kFp32 && kWidth > 128 ? 64 : 128;
  static constexpr int kColumns = kWidth < kMost ? kWidth : kMost;
  static constexpr int kParts = kWidth / kColumns;
  static_assert(kQueries <= kThreads);
  static constexpr int kK = 0, kV = TileBytes<E>(kRows, kWidth), kQ = 2 * kV;
  static constexpr int kDout = kQ + TileBytes<E>(kQueries, kWidth);
  static constexpr int kBytes = kDout + TileBytes<E>(kQueries, kWidth);
  // Beside a query's row.
  static PLURAL_DEVICE int Lse(int query) { return WordOfRow<E, kWidth>(kQ, query, 0); }
  static PLURAL_DEVICE int Delta(int query) { return WordOfRow<E, kWidth>(kQ, query, 1); }
  static PLURAL_DEVICE int Position(int query) { return WordOfRow<E, kWidth>(kQ, query, 2); }

  struct Registers {
    Pair<E> a[4], b[4];
    float s[kQueries / 8][4], dp[kQueries / 8][4], dk[kColumns / 8][4], dv[kColumns / 8][4];
  };

  template <class Block>
  static PLURAL_DEVICE void Run(Block& block, const TreeAttentionArguments& a, int index, int head_part) {
    const int shared_head = head_part / kParts, first_column = head_part % kParts * kColumns;
    const int sharing = a.heads / a.shared_heads, first_key = index * kRows;
    CopyTile<E, kRows, kWidth, kThreads>(block, kK, a.dim, [&](int key) {
      return KeyAt<E>(a, a.k, a.k_row, a.k_head, first_key + key, shared_head);
    });
    CopyTile<E, kRows, kWidth, kThreads>(block, kV, a.dim, [&](int key) {
      return KeyAt<E>(a, a.v, a.v_row, a.v_head, first_key + key, shared_head);
    });
    block.Each([&](int, Registers& r) {
      PLURAL_UNROLL
      for (int j = 0; j < kColumns / 8; ++j) {
        r.dk[j][0] = r.dk[j][1] = r.dk[j][2] = r.dk[j][3] = 0;
        r.dv[j][0] = r.dv[j][1] = r.dv[j][2] = r.dv[j][3] = 0;
      }
    });
    for (int head = shared_head * sharing; head < (shared_head + 1) * sharing; ++head) {
      for (int i = a.queries_of_keys.first[index]; i < a.queries_of_keys.first[index + 1]; ++i) {
        const int first_query = a.queries_of_keys.tile[i] / 2 * kQueries;
        block.Sync();  // nobody reads the last tile any more
        CopyQueries(block, a, head, first_query);
        block.Each([&](int, Registers& r) {
          PLURAL_UNROLL
          for (int j = 0; j < kQueries / 8; ++j) {
            r.s[j][0] = r.s[j][1] = r.s[j][2] = r.s[j][3] = 0;
            r.dp[j][0] = r.dp[j][1] = r.dp[j][2] = r.dp[j][3] = 0;
          }
        });
        block.WaitCopies();
        block.Sync();
        MultiplyRows<E, kWidth, kQueries>(block, kK, kQ, [](Registers& r) { return r.s; });
        MultiplyRows<E, kWidth, kQueries>(block, kV, kDout, [](Registers& r) { return r.dp; });
        Gradients(block, a, first_key, first_query, a.queries_of_keys.tile[i] % 2 != 0);
        MultiplyAccumulator<E, kQueries, kWidth, kColumns>(
            block, [](Registers& r) { return r.s; }, kDout, first_column, [](Registers& r) { return r.dv; });
        MultiplyAccumulator<E, kQueries, kWidth, kColumns>(
            block, [](Registers& r) { return r.dp; }, kQ, first_column, [](Registers& r) { return r.dk; });
      }
    }
    block.Each([&](int thread, Registers& r) {
      PLURAL_UNROLL
      for (int half = 0; half < 2; ++half) {
        const int key = first_key + 16 * WarpOf(thread) + RowOfLane(thread) + 8 * half;
        if (key >= a.rows) continue;
        const std::int64_t row = static_cast<std::int64_t>(key) * a.shared_heads + shared_head;
        PLURAL_UNROLL
        for (int j = 0; j < kColumns / 8; ++j) {
          const int column = first_column + 8 * j + ColumnOfLane(thread);
          StorePair<E>(a.dk, row, a.dim, column, r.dk[j][2 * half], r.dk[j][2 * half + 1]);
          StorePair<E>(a.dv, row, a.dim, column, r.dv[j][2 * half], r.dv[j][2 * half + 1]);
        }
      }
    });
  }

 private:
  template <class Block>
  static PLURAL_DEVICE void CopyQueries(Block& block, const TreeAttentionArguments& a, int head,
                                        int first_query) {
    const std::int64_t dout_row = static_cast<std::int64_t>(a.heads) * a.dim;
    CopyTile<E, kQueries, kWidth, kThreads>(block, kQ, a.dim, [&](int row) {
      return KeyAt<E>(a, a.q, a.q_row, a.q_head, first_query + row, head);
    });
    CopyTile<E, kQueries, kWidth, kThreads>(block, kDout, a.dim, [&](int row) {
      return KeyAt<E>(a, a.dout, dout_row, a.dim, first_query + row, head);
    });
    block.Each([&](int thread, auto&) {
      if (thread >= kQueries) return;
      const int query = first_query + thread;
      const std::int64_t at = static_cast<std::int64_t>(head) * a.rows + query;
      block.Store(thread, Lse(thread), query < a.rows ? a.lse[at] * kLog2E : 0.0F);
      block.Store(thread, Delta(thread), query < a.rows ? a.delta[at] : 0.0F);
      block.Store(thread, Position(thread), PositionOf(a, query));
    });
  }

  template <class Block>
  static PLURAL_DEVICE void Gradients(Block& block, const TreeAttentionArguments& a, int first_key,
                                      int first_query, bool masked) {
    const Logits logits(a);
    block.Each([&](int thread, Registers& r) {
      PLURAL_UNROLL
      for (int half = 0; half < 2; ++half) {
        const int key = first_key + 16 * WarpOf(thread) + RowOfLane(thread) + 8 * half;
        const int end = masked ? EndOf(a, key) : 0, position = masked ? PositionOf(a, key) : 0;
        PLURAL_UNROLL
        for (int j = 0; j < kQueries / 8; ++j) {
          PLURAL_UNROLL
          for (int e = 0; e < 2; ++e) {
            const int column = 8 * j + ColumnOfLane(thread) + e;
            const bool visible =
                !masked || Sees(a, first_query + column, block.template Load<int>(thread, Position(column)),
                                key, end, position);
            ScoreGradient(logits, a.scale, visible, block.template Load<float>(thread, Lse(column)),
                          block.template Load<float>(thread, Delta(column)), &r.s[j][2 * half + e],
                          &r.dp[j][2 * half + e]);
          }
        }
      }
    });
  }
};

}  // namespace plural::trainer::gpu
