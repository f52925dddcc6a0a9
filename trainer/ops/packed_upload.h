// Numbers of several kinds that go to a device in one copy.
//
// Owns: their places in that copy. Does not own: what they mean. Thread rule: one thread.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "trainer/ops/to_device.h"

namespace plural::trainer {

class PackedUpload {
 public:
  struct Place {
    std::int64_t word = 0, words = 0;  // of eight bytes
  };

  template <class T>
  Place Add(const std::vector<T>& values) {
    static_assert(std::is_trivially_copyable_v<T>);
    const std::size_t bytes = values.size() * sizeof(T), words = (bytes + 7) / 8;
    const Place place{static_cast<std::int64_t>(words_.size()), static_cast<std::int64_t>(words)};
    words_.resize(words_.size() + words);
    if (bytes > 0) std::memcpy(words_.data() + place.word, values.data(), bytes);
    return place;
  }

  void Send(at::Device device) { sent_ = ToDevice(words_, at::kLong, device); }

  // After Send. The values of a vector of std::int64_t.
  at::Tensor Longs(const Place& place) const { return sent_.narrow(0, place.word, place.words); }
  // The values, where the device has them.
  template <class T>
  const T* At(const Place& place) const {
    return reinterpret_cast<const T*>(static_cast<const std::int64_t*>(sent_.const_data_ptr()) + place.word);
  }

 private:
  std::vector<std::int64_t> words_;
  at::Tensor sent_;
};

}  // namespace plural::trainer
