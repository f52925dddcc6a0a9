// Logit loops: the passes of sampling over a whole vocabulary, for the CPU.
//
// Owns: loops over plain pointers, compiled for several instruction sets. Does not own: filters and draws
// (sampler.h). Thread rule: pure functions.
#pragma once

#include <cstdint>

namespace plural::trainer::host {

// maxima[b] = largest of the b-th `block` values of z, NaN ignored; the last block may be shorter.
void BlockMaxima(const float* z, std::int64_t count, std::int64_t block, float* maxima);
void BlockMaxima(const double* z, std::int64_t count, std::int64_t block, double* maxima);

// weights[i] = exp((z[i] - top) / temperature), sums[b] = their sum over the b-th `block` values.
void TemperedWeights(const float* z, std::int64_t count, double top, double temperature, std::int64_t block,
                     float* weights, double* sums);
void TemperedWeights(const double* z, std::int64_t count, double top, double temperature, std::int64_t block,
                     double* weights, double* sums);

}  // namespace plural::trainer::host
