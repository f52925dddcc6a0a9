// The part of the module's interface (module.h) that is about the inputs of several adapters.
//
// Owns: the entry points' names and types. Does not own: the kernel (drop_sites.h), its use
// (ops/dropout_cuda.h). Thread rule: any thread.
#pragma once

#include <cstdint>

#include "trainer/kernels/cuda/module.h"

namespace plural::trainer {

inline constexpr int kMostDropSites = 4;

// As host::DropoutFactor at several sites, fp32 or bf16. Device pointers, 16 bytes aligned; features is a
// multiple of 8. Forward (sum null): dropped = x times the factors of each site. Back: sum += each of dx
// times its site's factors, in the sites' order, each product and each sum rounded to the type.
struct DropSitesArguments {
  const void* x;   // [rows, features]
  void* dropped;   // [sites, rows, features]
  const void* dx;  // [sites, rows, features]
  void* sum;       // [rows, features]
  std::int64_t rows, features;
  const std::int64_t* row_key;
  std::uint64_t site[kMostDropSites];
  int sites;
  std::uint64_t threshold;  // host::DropoutThreshold
  float kept;
  KernelType type;
};
inline constexpr char kDropSitesName[] = "plural_drop_sites";
using DropSitesOnCuda = int(const DropSitesArguments& arguments, void* stream);

}  // namespace plural::trainer
