#include "trainer/kernels/logit_loops.h"

#include <limits>

#include "trainer/kernels/host_vectors.h"

namespace plural::trainer::host {
namespace {

template <class T>
PLURAL_INLINE void BlockMaximaLoop(const T* z, std::int64_t count, std::int64_t block, T* maxima) {
  constexpr std::int64_t kWidth = Lanes<T>::kWidth;
  constexpr T kLowest = -std::numeric_limits<T>::infinity();
  for (std::int64_t begin = 0; begin < count; begin += block) {
    const std::int64_t end = begin + block < count ? begin + block : count;
    Vector<T> largest = Vector<T>{} + kLowest;
    for (std::int64_t i = begin; i < end; i += kWidth) {
      largest = Max(Load(z + i, end - i, kLowest), largest);  // ignores a NaN in z
    }
    T top = kLowest;
    for (std::int64_t l = 0; l < kWidth; ++l) top = largest[l] > top ? largest[l] : top;
    *maxima++ = top;
  }
}

template <class T>
PLURAL_INLINE void TemperedWeightsLoop(const T* z, std::int64_t count, double top, double temperature,
                                       std::int64_t block, T* weights, double* sums) {
  constexpr std::int64_t kWidth = Lanes<T>::kWidth;
  constexpr T kLowest = -std::numeric_limits<T>::infinity();
  const auto highest = static_cast<T>(top), inverse = static_cast<T>(1.0 / temperature);
  for (std::int64_t begin = 0; begin < count; begin += block) {
    const std::int64_t end = begin + block < count ? begin + block : count;
    Vector<T> sum{};
    for (std::int64_t i = begin; i < end; i += kWidth) {
      const Vector<T> weight = Exp((Load(z + i, end - i, kLowest) - highest) * inverse);
      Store(weights + i, weight, end - i);
      sum += weight;
    }
    *sums++ = Sum<T>(sum);
  }
}

}  // namespace

PLURAL_CLONES void BlockMaxima(const float* z, std::int64_t count, std::int64_t block, float* maxima) {
  BlockMaximaLoop(z, count, block, maxima);
}
void BlockMaxima(const double* z, std::int64_t count, std::int64_t block, double* maxima) {
  BlockMaximaLoop(z, count, block, maxima);
}

PLURAL_CLONES void TemperedWeights(const float* z, std::int64_t count, double top, double temperature,
                                   std::int64_t block, float* weights, double* sums) {
  TemperedWeightsLoop(z, count, top, temperature, block, weights, sums);
}
void TemperedWeights(const double* z, std::int64_t count, double top, double temperature, std::int64_t block,
                     double* weights, double* sums) {
  TemperedWeightsLoop(z, count, top, temperature, block, weights, sums);
}

}  // namespace plural::trainer::host
