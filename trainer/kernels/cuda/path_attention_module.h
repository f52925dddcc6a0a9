// The part of the module's interface (module.h) that is about attention over a cache of keys and values.
//
// Owns: the entry point's name and types, what its kernels serve. Does not own: the kernels
// (path_attention.h), their use (ops/path_attention_cuda.h). Thread rule: any thread.
#pragma once

#include <cstdint>

#include "data/draws.h"
#include "trainer/kernels/cuda/module.h"

namespace plural::trainer {

// One new token a row, which attends to its path: tokens that lie in slots of a pool, in any order. Device
// pointers. Rows of q, new_k and new_v begin at multiples of 16 bytes; their heads, and the pools, are dense.
struct PathAttentionArguments {
  const void *q, *new_k, *new_v;     // [rows, heads, dim], [rows, shared_heads, dim]
  std::int64_t q_row, k_row, v_row;  // strides in values
  // [slots, shared_heads, dim]. The new token's keys and values are stored in its slot, too.
  void *k, *v;
  std::int32_t rows, heads, shared_heads, dim;
  // The path of row r: slot[first[r]] up to slot[first[r + 1] - 1], that of the new token, in no other path.
  const std::int32_t *first, *slot;
  std::int32_t window;   // tokens at a path's end that are seen; 0: all
  std::int32_t parts;    // PathPartsOf the longest path
  float scale, softcap;  // logits: scale q k, or softcap tanh(scale q k / softcap) where it is above 0
  void* out;             // [rows, heads, dim]
  float* scratch;        // PathScratchOf values; null where parts is 1
  KernelType type;       // fp32 or bf16
};
inline constexpr char kPathAttentionName[] = "plural_path_attention";
using PathAttentionOnCuda = int(const PathAttentionArguments& arguments, void* stream);

// A block takes this many tokens of a path, counted from the first that is seen: what a row's result is
// summed up of depends on its path alone.
inline constexpr std::int64_t kPathPart = 256;
PLURAL_HOST_DEVICE constexpr std::int64_t PathPartsOf(std::int64_t tokens) {
  return (tokens + kPathPart - 1) / kPathPart;
}
// Query heads of a block: as many of those that share a key head as divide them, up to eight.
inline constexpr int kPathHeads = 8;
PLURAL_HOST_DEVICE constexpr int PathHeadsOf(int sharing) {
  int heads = sharing < kPathHeads ? sharing : kPathHeads;
  while (sharing % heads != 0) --heads;
  return heads;
}
// A part's sum of values, its largest logit and its sum of exponentials.
constexpr std::int64_t PathScratchOf(std::int64_t rows, std::int64_t heads, std::int64_t parts,
                                     std::int64_t dim) {
  return rows * heads * parts * (dim + 2);
}
constexpr bool PathAttentionServes(KernelType type, std::int64_t dim) {
  return type != KernelType::kFp64 && dim >= 8 && dim % 8 == 0 && dim <= 256;
}

}  // namespace plural::trainer
