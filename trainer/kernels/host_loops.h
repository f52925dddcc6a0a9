// Host loops: single passes over memory where ATen would need several, for the CPU.
//
// Owns: loops over plain pointers, vectorised by hand and compiled for several instruction sets;
// the result does not depend on the row or thread that calls. Does not own: tensors, autograd,
// devices: each caller has an ATen expression of the same formula for other devices. Thread rule:
// pure functions, one thread.
//
// Matrices are row-major and dense.
#pragma once

#include <cstdint>

#include "trainer/kernels/dtypes.h"

namespace plural::trainer::host {

// Statistics of the softmax of one row of logits.
struct RowStatistics {
  double lse = 0.0;           // log sum exp z
  double entropy_nats = 0.0;  // lse - sum p z
};

// Coefficients of one row's gradient (softmax_rows.h).
struct RowGradientTerms {
  double lse = 0.0;
  double a = 0.0, b = 1.0, lse_b = 0.0;  // lse_b: of z / b
  double c = 0.0;
  double softcap = 0.0;  // > 0: the logits are softcap tanh(x / softcap), the gradient is that of x
};

// The map from a query's product with a key to an attention logit.
struct ScoreTerms {
  double scale = 1.0;
  double softcap = 0.0;  // > 0: softcap tanh(scale product / softcap)
};

// Loops over stored values: float, double or bf16. Factors and sums are Computed<T>.
#define PLURAL_STORED_LOOPS(T)                                                                              \
  /* sum = x + branch (branch may be null: then sum is not written), norm = sum * rstd * weight. */         \
  void RmsNorm(const T* x, const T* branch, const Computed<T>* weight, double eps, std::int64_t rows,       \
               std::int64_t count, T* sum, T* norm, Computed<T>* rstd);                                     \
  /* dx = gradient through the norm + dsum (null: none); dweight (null: not wanted) is added to. */         \
  void RmsNormBackward(const T* x, const Computed<T>* rstd, const Computed<T>* weight, const T* dnorm,      \
                       const T* dsum, std::int64_t rows, std::int64_t count, T* dx, Computed<T>* dweight);  \
                                                                                                            \
  void SwiGlu(const T* gate, const T* up, std::int64_t count, T* out);                                      \
  void SwiGluBackward(const T* gate, const T* up, const T* dout, std::int64_t count, T* dgate, T* dup);     \
  /* gelu(gate) * up with tanh's approximation of gelu. */                                                  \
  void GeGlu(const T* gate, const T* up, std::int64_t count, T* out);                                       \
  void GeGluBackward(const T* gate, const T* up, const T* dout, std::int64_t count, T* dgate, T* dup);      \
                                                                                                            \
  /* Rotates the pairs (i, i + half) of every head of x [rows, heads, 2 half]; direction -1: back. */       \
  void Rotate(const T* x, const Computed<T>* cos, const Computed<T>* sin, int direction, std::int64_t rows, \
              std::int64_t heads, std::int64_t half, T* out);

// Loops over logits and scores: float or double.
#define PLURAL_COMPUTED_LOOPS(T)                                                                   \
  RowStatistics StatisticsOfRow(const T* z, std::int64_t count, double temperature = 1.0);         \
  /* StatisticsOfRow().lse, to the bit. */                                                         \
  double LseOfRow(const T* z, std::int64_t count, double temperature = 1.0);                       \
  /* z = a softmax(z / b) + c p */                                                                 \
  void RowGradient(T* z, std::int64_t count, const RowGradientTerms& terms);                       \
  /* z = cap tanh(z / cap) */                                                                      \
  void SoftCap(T* z, std::int64_t count, double cap);                                              \
                                                                                                   \
  /* scores [rows, keys] become the softmax over keys of the logits that `terms` makes of them. */ \
  void SoftmaxOfScores(T* scores, const ScoreTerms& terms, std::int64_t rows, std::int64_t keys);

PLURAL_STORED_LOOPS(float)
PLURAL_STORED_LOOPS(c10::BFloat16)
PLURAL_STORED_LOOPS(double)
PLURAL_COMPUTED_LOOPS(float)
PLURAL_COMPUTED_LOOPS(double)
#undef PLURAL_STORED_LOOPS
#undef PLURAL_COMPUTED_LOOPS

}  // namespace plural::trainer::host
