// The meta device, whose tensors have shapes and no values, in the place of a GPU: whatever touches a value
// by a host's pointer crashes, whatever asks for one throws or, where a test wants to go on, reads zeros.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <torch/library.h>

#include <cstdint>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

namespace plural::trainer::testing {

// Operators whose results' shapes depend on no value, and that lack a kernel for this device.
namespace meta {

inline at::Tensor IndexSelect(const at::Tensor& x, std::int64_t dim, const at::Tensor& index) {
  EXPECT_TRUE(index.is_meta()) << "index_select gets an index on the host";
  std::vector<std::int64_t> shape = x.sizes().vec();
  shape.at(static_cast<std::size_t>(dim)) = index.numel();
  return at::empty(shape, x.options());
}

inline at::Tensor& IndexPut(at::Tensor& x, const c10::List<std::optional<at::Tensor>>&, const at::Tensor&,
                            bool, bool) {
  return x;
}

inline at::Tensor& LikeItsInput(const at::Tensor& x, at::Tensor& out) {
  out.resize_(x.sizes());
  return out;
}

inline at::Tensor Where(const at::Tensor& condition, const at::Tensor& x, const at::Tensor&) {
  return at::empty(condition.sizes(), x.options());
}

// Called for an output that is one of its inputs.
inline at::Tensor& WhereOut(const at::Tensor&, const at::Tensor&, const at::Tensor&, at::Tensor& out) {
  return out;
}

inline std::tuple<at::Tensor, at::Tensor> LogSigmoid(const at::Tensor& x) {
  return {at::empty(x.sizes(), x.options()), at::empty({0}, x.options())};
}

inline c10::Scalar Zero(const at::Tensor&) { return 0.0; }

// What was copied between the host and the device.
struct Copies {
  std::int64_t to_device = 0, to_host = 0, bytes_to_host = 0;
};

}  // namespace meta

// While it lives, the meta device computes what the project's code for GPUs asks for.
class MetaDevice {
 public:
  enum class Reads : std::uint8_t { kThrow, kZeros };  // copies to the host

  explicit MetaDevice(Reads reads) {
    library_.impl("index_select", &meta::IndexSelect);
    library_.impl("_index_put_impl_", &meta::IndexPut);
    library_.impl("abs.out", &meta::LikeItsInput);
    library_.impl("where.self", &meta::Where);
    library_.impl("where.self_out", &meta::WhereOut);
    library_.impl("log_sigmoid_forward", &meta::LogSigmoid);
    if (reads == Reads::kThrow) return;
    library_.impl(
        "_to_copy", [copies = &copies_](const at::Tensor& x, std::optional<at::ScalarType> dtype,
                                        std::optional<at::Layout>, std::optional<at::Device> device,
                                        std::optional<bool>, bool, std::optional<at::MemoryFormat>) {
          const auto options =
              x.options().dtype(dtype.value_or(x.scalar_type())).device(device.value_or(x.device()));
          if (!options.device().is_cpu()) {
            if (x.is_cpu()) ++copies->to_device;
            return at::empty(x.sizes(), options);
          }
          const at::Tensor zeros = at::zeros(x.sizes(), options);
          ++copies->to_host;
          copies->bytes_to_host += static_cast<std::int64_t>(zeros.nbytes());
          return zeros;
        });
    library_.impl("_local_scalar_dense", &meta::Zero);
  }
  MetaDevice(const MetaDevice&) = delete;
  MetaDevice& operator=(const MetaDevice&) = delete;

  // Since the last call; with kZeros.
  meta::Copies TakeCopies() { return std::exchange(copies_, {}); }

 private:
  meta::Copies copies_;
  torch::Library library_{torch::Library::IMPL, "aten", c10::DispatchKey::Meta, __FILE__, __LINE__};
};

}  // namespace plural::trainer::testing
