#include "trainer/ops/nf4.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "trainer/kernels/nf4_loops.h"
#include "trainer/ops/nf4_cuda.h"
#include "trainer/ops/to_device.h"

namespace plural::trainer {
namespace {

using host::CeilDivide;
using host::kAbsmaxBlock;
using host::kNf4Block;

constexpr std::int64_t kBlocksPerThread = 512;  // the least that is worth a thread

host::Nf4View ViewOf(const Nf4Weight& weight) {
  host::Nf4View view{.packed = weight.packed_P.const_data_ptr<std::uint8_t>(),
                     .count = weight.outputs * weight.inputs};
  if (!weight.DoublyQuantized()) {
    view.absmax = weight.absmax_B.const_data_ptr<float>();
    return view;
  }
  view.codes = weight.absmax_B.const_data_ptr<std::uint8_t>();
  view.map = weight.map.const_data_ptr<float>();
  view.nested = weight.nested_absmax_N.const_data_ptr<float>();
  view.offset = weight.offset;
  return view;
}

void DequantizeInto(const Nf4Weight& weight, const at::Tensor& out_OI) {
  if (!weight.packed_P.is_cpu()) {
    if (!weight.packed_P.is_cuda() || !DequantizeOnCuda(weight, out_OI)) DequantizeWithAten(weight, out_OI);
    return;
  }
  const host::Nf4View view = ViewOf(weight);
  AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, out_OI.scalar_type(), "dequantise", [&] {
    auto* out = out_OI.mutable_data_ptr<scalar_t>();
    const std::int64_t blocks = CeilDivide(view.count, kNf4Block);
    at::parallel_for(0, blocks, kBlocksPerThread, [&](std::int64_t begin, std::int64_t end) {
      host::DequantizeNf4(view, begin * kNf4Block, std::min(view.count, end * kNf4Block),
                          out + begin * kNf4Block);
    });
  });
}

// ATen computes in one thread while this lives.
class OneThread {
 public:
  OneThread() : threads_(at::get_num_threads()) { at::set_num_threads(1); }
  ~OneThread() { at::set_num_threads(threads_); }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int threads_;
};

}  // namespace

// Both values of a byte come from one table of pairs.
void DequantizeWithAten(const Nf4Weight& weight, const at::Tensor& out_OI) {
  const at::Tensor host_pairs = at::empty({256, 2}, at::kFloat);
  auto* pair = host_pairs.mutable_data_ptr<float>();
  for (std::size_t byte = 0; byte < 256; ++byte) {
    *pair++ = host::kNf4Values[byte >> 4];
    *pair++ = host::kNf4Values[byte & 15];
  }
  const std::int64_t count = out_OI.numel(), blocks = weight.absmax_B.numel();
  const at::Tensor values = ToDevice(host_pairs, weight.packed_P.device())
                                .index_select(0, weight.packed_P.to(at::kInt))
                                .view(-1)
                                .narrow(0, 0, count);
  const at::Tensor absmax_B = weight.Absmax();
  const std::int64_t whole = count / kNf4Block;
  const at::Tensor out = out_OI.view(-1);
  out.narrow(0, 0, whole * kNf4Block)
      .copy_(values.narrow(0, 0, whole * kNf4Block)
                 .view({whole, kNf4Block})
                 .mul_(absmax_B.narrow(0, 0, whole).unsqueeze(1))
                 .view(-1));
  if (whole == blocks) return;
  const std::int64_t rest = count - whole * kNf4Block;
  out.narrow(0, whole * kNf4Block, rest)
      .copy_(values.narrow(0, whole * kNf4Block, rest).mul_(absmax_B[whole]));
}

HeldWeight Nf4Scratch::Take(std::int64_t rows, std::int64_t columns, const at::TensorOptions& options) {
  if (held_) throw std::logic_error("Nf4Scratch: a second weight would overwrite the one that is in use");
  const auto size = static_cast<std::int64_t>(options.dtype().itemsize());
  const std::int64_t bytes = rows * columns * size;
  if (!bytes_.defined() || bytes_.numel() < bytes || bytes_.device() != options.device()) {
    bytes_ = at::Tensor();  // freed before the larger one is made
    bytes_ = at::empty({bytes}, options.dtype(at::kByte));
  }
  const at::Tensor memory = bytes_.narrow(0, 0, bytes).view(c10::typeMetaToScalarType(options.dtype()));
  HeldWeight weight(memory.view({rows, columns}), this);
  held_ = true;
  return weight;
}

Nf4Weight Nf4Weight::To(at::Device device) const {
  Nf4Weight moved = *this;
  for (at::Tensor* tensor : {&moved.packed_P, &moved.absmax_B, &moved.map, &moved.nested_absmax_N}) {
    if (tensor->defined()) *tensor = tensor->to(device);
  }
  return moved;
}

std::int64_t Nf4Weight::Bytes() const {
  std::size_t bytes = packed_P.nbytes() + absmax_B.nbytes();
  if (DoublyQuantized()) bytes += map.nbytes() + nested_absmax_N.nbytes();
  return static_cast<std::int64_t>(bytes);
}

at::Tensor Nf4Weight::Absmax() const {
  if (!DoublyQuantized()) return absmax_B;
  const std::int64_t blocks = absmax_B.numel();
  return map.index_select(0, absmax_B.to(at::kInt))
      .mul_(nested_absmax_N.repeat_interleave(kAbsmaxBlock, 0, nested_absmax_N.numel() * kAbsmaxBlock)
                .narrow(0, 0, blocks))
      .add_(offset);
}

at::Tensor Nf4Weight::Dequantized(at::ScalarType dtype) const {
  const at::Tensor weight_OI = at::empty({outputs, inputs}, packed_P.options().dtype(dtype));
  DequantizeInto(*this, weight_OI);
  return weight_OI;
}

HeldWeight Nf4Weight::DequantizedInScratch(at::ScalarType dtype) const {
  HeldWeight weight = scratch->Take(outputs, inputs, packed_P.options().dtype(dtype));
  DequantizeInto(*this, weight.Tensor());
  return weight;
}

template <class T>
void Nf4Weight::DequantizeRows(std::int64_t begin, std::int64_t end, T* out) const {
  host::DequantizeNf4(ViewOf(*this), begin * inputs, end * inputs, out);
}
template void Nf4Weight::DequantizeRows(std::int64_t, std::int64_t, float*) const;
template void Nf4Weight::DequantizeRows(std::int64_t, std::int64_t, double*) const;
template void Nf4Weight::DequantizeRows(std::int64_t, std::int64_t, c10::BFloat16*) const;

std::int64_t Nf4Bytes(std::int64_t values) {
  const std::int64_t blocks = CeilDivide(values, kNf4Block);
  const std::int64_t floats = CeilDivide(blocks, kAbsmaxBlock) + host::kAbsmaxLevels;
  return CeilDivide(values, 2) + blocks + floats * static_cast<std::int64_t>(sizeof(float));
}

Nf4Weight QuantizeToNf4(const at::Tensor& weight_OI, bool double_quantization) {
  const at::NoGradGuard no_grad;
  const at::Tensor source = weight_OI.to(at::kCPU, at::kFloat).contiguous();
  const std::int64_t count = source.numel(), blocks = CeilDivide(count, kNf4Block);
  Nf4Weight weight;
  weight.outputs = weight_OI.size(0);
  weight.inputs = weight_OI.size(1);
  weight.packed_P = at::empty({CeilDivide(count, 2)}, at::kByte);
  weight.absmax_B = at::empty({blocks}, at::kFloat);
  const auto* from = source.const_data_ptr<float>();
  auto* packed = weight.packed_P.mutable_data_ptr<std::uint8_t>();
  auto* absmax = weight.absmax_B.mutable_data_ptr<float>();
  at::parallel_for(0, blocks, kBlocksPerThread, [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t first = begin * kNf4Block;
    host::QuantizeNf4(from + first, std::min(count, end * kNf4Block) - first, packed + first / 2,
                      absmax + begin);
  });
  if (!double_quantization) return weight;

  {
    const OneThread guard;  // the order of a long sum depends on the number of threads
    weight.offset = weight.absmax_B.mean().item<float>();
  }
  const at::Tensor centred = weight.absmax_B - weight.offset;
  weight.absmax_B = at::empty({blocks}, at::kByte);
  weight.nested_absmax_N = at::empty({CeilDivide(blocks, kAbsmaxBlock)}, at::kFloat);
  host::QuantizeAbsmax(centred.const_data_ptr<float>(), blocks,
                       weight.absmax_B.mutable_data_ptr<std::uint8_t>(),
                       weight.nested_absmax_N.mutable_data_ptr<float>());
  const auto map = host::DynamicMap();
  weight.map = at::empty({host::kAbsmaxLevels}, at::kFloat);
  std::memcpy(weight.map.mutable_data_ptr<float>(), map.data(), sizeof map);
  return weight;
}

}  // namespace plural::trainer
