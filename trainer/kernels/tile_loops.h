// Tile loops: the operations of attention on tiles between their products, on the CPU.
//
// Owns: packing rows into operands of TileProduct (tile_products.h) and back, the softmax of transposed score
// tiles and its gradient. Does not own: the products, which tiles there are (tree_tiles.h). Thread rule: pure
// functions.
//
// Scores are transposed: a tile is [keys, kTileSide], so that a key's scores with 16 rows are one
// vector, sums and maxima over keys stay within their lanes, and probabilities are in place as the
// operand of the next product. E is the stored type of values (float, double or bf16), Computed<E>
// the type of scores.
#pragma once

#include <cstdint>

#include "trainer/kernels/dtypes.h"
#include "trainer/kernels/host_loops.h"

namespace plural::trainer::host {

// Scores of `keys` keys with `rows` rows, from the upper left corner on; keys are kTileSide apart.
struct TileView {
  std::int64_t keys = 0, rows = 0;
  const std::uint8_t* mask = nullptr;  // [keys, kTileSide] likewise; null: all visible
};

// `x` has `rows` rows of `count` values, `stride` apart.
#define PLURAL_TILE_LOOPS(E)                                                                             \
  /* out [count, kTileSide]: rows become columns, with zero columns up to a multiple of 16; bf16 in */   \
  /* pairs, [count / 2, kTileSide, 2]. This is the right operand of a product over `count`. */           \
  void PackColumns(const E* x, std::int64_t stride, std::int64_t rows, std::int64_t count, E* out);      \
  /* The same without pairs: the left operand. */                                                        \
  void Transpose(const E* x, std::int64_t stride, std::int64_t rows, std::int64_t count, E* out);        \
  /* out [rows, count padded to a multiple of 16], with zero rows up to a multiple of 16; bf16 in */     \
  /* pairs, [rows / 2, padded count, 2]. This is the right operand of a product over rows. */            \
  void PackRows(const E* x, std::int64_t stride, std::int64_t rows, std::int64_t count, E* out);         \
  /* The inverse of Transpose: columns [count, kTileSide] become rows, each times its factor. */         \
  void StoreColumns(const Computed<E>* columns, const Computed<E>* factor, std::int64_t rows,            \
                    std::int64_t count, E* out, std::int64_t stride);                                    \
  /* sums[r] = sum over i of x[r, i] y[r, i]; both have the same stride. */                              \
  void RowDots(const E* x, const E* y, std::int64_t stride, std::int64_t rows, std::int64_t count,       \
               Computed<E>* sums);                                                                       \
                                                                                                         \
  /* p = exp(logit - largest), added to `sums`; keys after the last, up to a multiple of 16, get 0. */   \
  /* `p` may be the logits themselves; for bf16 it is in pairs of keys. */                               \
  void ExpOfLogits(const Computed<E>* logits, const TileView& tile, const Computed<E>* largest,          \
                   double* sums, E* p);                                                                  \
  /* Scores become probabilities p, given the rows' lse, and dp, the gradient of p, becomes ds, that */  \
  /* of the scores: scale * p * (dp - delta) without a cap. `p` and `ds` may be `scores` and `dp` */     \
  /* themselves. For bf16, ds is also written in pairs of keys. Keys after the last, up to a multiple */ \
  /* of 16, get 0. */                                                                                    \
  void ScoreGradient(Computed<E>* scores, Computed<E>* dp, const TileView& tile, const Computed<E>* lse, \
                     const Computed<E>* delta, const ScoreTerms& terms, E* p, E* ds, E* ds_pairs);

// Scores become logits, -inf where not visible; largest[r] is raised to the largest one of row r.
#define PLURAL_LOGIT_LOOPS(T) \
  void LogitsOfScores(T* scores, const TileView& tile, const ScoreTerms& terms, T* largest);

PLURAL_TILE_LOOPS(float)
PLURAL_TILE_LOOPS(c10::BFloat16)
PLURAL_TILE_LOOPS(double)
PLURAL_LOGIT_LOOPS(float)
PLURAL_LOGIT_LOOPS(double)
#undef PLURAL_TILE_LOOPS
#undef PLURAL_LOGIT_LOOPS

}  // namespace plural::trainer::host
