// The interface of the module plural_kernels, the CUDA kernels of the trainer, opened with dlopen.
//
// Owns: the entry points' names and types. Does not own: what they do (the .cu file of each). The module
// knows neither libtorch nor the trainer: it is compiled by nvcc and takes plain pointers. An entry point
// starts its kernel on `stream` (a cudaStream_t) of the current device and returns CUDA's error, 0 for none.
// Thread rule: any thread.
#pragma once

#include <cstdint>

namespace plural::trainer {

inline constexpr char kKernelModule[] = "libplural_kernels.so";

enum class KernelType : int { kFp32, kBf16, kFp64 };

// NF4 to fp32 or bf16. Device pointers, as in host::Nf4View: one of `absmax` and `codes` is null.
struct Nf4Arguments {
  const std::uint8_t* packed;
  std::int64_t count;  // values
  const float* absmax;
  const std::uint8_t* codes;
  const float* map;
  const float* nested;
  float offset;
  const float* values;  // the 16 values, on the host
  void* out;
  KernelType type;
};
inline constexpr char kDequantizeNf4Name[] = "plural_dequantize_nf4";
using DequantizeNf4OnCuda = int(const Nf4Arguments& arguments, void* stream);

// x times the factors of host::DropoutFactor, which are fp32 for fp32 and bf16. Device pointers.
struct DropoutArguments {
  const void* x;  // [rows, features]
  void* out;      // the same, of the same type
  std::int64_t rows;
  std::int64_t features;
  const std::int64_t* row_key;
  std::uint64_t site;
  std::uint64_t threshold;  // host::DropoutThreshold
  double kept;
  KernelType type;
};
inline constexpr char kDropoutName[] = "plural_dropout";
using DropoutOnCuda = int(const DropoutArguments& arguments, void* stream);

// Which blocks of the other side a block of rows meets: those of block i are tile[first[i]] to tile[first[i +
// 1]], each twice its number, plus one where some of its pairs are not visible.
struct TileList {
  const std::int32_t* first;
  const std::int32_t* tile;
};

// Attention of a token tree: row q sees row k when k <= q < end[k] and, with a window, position[q] -
// position[k] < window. Device pointers. Rows of q, k and v are 16 bytes aligned, as are their heads; all
// else is dense.
struct TreeAttentionArguments {
  const void *q, *k, *v;                                     // [rows, heads, dim], [rows, shared_heads, dim]
  std::int64_t q_row, q_head, k_row, k_head, v_row, v_head;  // strides in values
  std::int32_t rows, heads, shared_heads, dim;
  const std::int32_t *end, *position;  // [rows]
  std::int32_t window;                 // 0: none
  float scale, softcap;  // logits: scale q k, or softcap tanh(scale q k / softcap) where it is above 0
  TileList keys_of_queries, queries_of_keys;  // of the blocks of TreeBlocksOf (tree_blocks.h)
  void* out;                                  // [rows, heads, dim]
  float* lse;                                 // [heads, rows]
  // Backward alone.
  const void* dout;
  float* delta;  // [heads, rows]: the sum over dim of out dout, which the first kernel leaves to the second
  void *dq, *dk, *dv;
  KernelType type;  // fp32 or bf16
};
// Whether the current device has what the kernels need for this type and head dimension; 1: yes.
inline constexpr char kTreeAttentionServesName[] = "plural_tree_attention_serves";
using TreeAttentionServesOnCuda = int(KernelType type, int dim);
inline constexpr char kTreeAttentionName[] = "plural_tree_attention";
inline constexpr char kTreeAttentionBackwardName[] = "plural_tree_attention_backward";
using TreeAttentionOnCuda = int(const TreeAttentionArguments& arguments, void* stream);

// As host::RmsNorm and host::RmsNormBackward (host_loops.h), fp32 or bf16. Device pointers, 16 bytes aligned;
// count is a multiple of 8.
struct RmsNormArguments {
  const void *x, *branch;  // [rows, count]; branch null: none, and no sum
  const float* weight;     // [count]
  std::int64_t rows, count;
  float eps;
  void *sum, *norm;
  float* rstd;  // [rows]
  KernelType type;
};
inline constexpr char kRmsNormName[] = "plural_rms_norm";
using RmsNormOnCuda = int(const RmsNormArguments& arguments, void* stream);

struct RmsNormBackwardArguments {
  const void* x;
  const float *rstd, *weight;
  const void *dnorm, *dsum;  // dsum null: none
  std::int64_t rows, count;
  void* dx;
  float* dweight_parts;  // [parts, count], whose sum over parts is dweight; null: not wanted
  std::int64_t parts;
  KernelType type;
};
inline constexpr char kRmsNormBackwardName[] = "plural_rms_norm_backward";
using RmsNormBackwardOnCuda = int(const RmsNormBackwardArguments& arguments, void* stream);

// As host::SwiGlu, host::GeGlu and their backward: dout null: forward. count is a multiple of 8.
struct GateArguments {
  const void *gate, *up, *dout;
  std::int64_t count;
  bool silu;  // else gelu
  void *out, *dgate, *dup;
  KernelType type;
};
inline constexpr char kGateName[] = "plural_gate";
using GateOnCuda = int(const GateArguments& arguments, void* stream);

// As host::Rotate; half is a multiple of 8.
struct RotateArguments {
  const void* x;           // [rows, heads, 2 half]
  const float *cos, *sin;  // [rows, half]
  bool back;
  std::int64_t rows, heads, half;
  void* out;
  KernelType type;
};
inline constexpr char kRotateName[] = "plural_rotate";
using RotateOnCuda = int(const RotateArguments& arguments, void* stream);

}  // namespace plural::trainer
