// NF4 weights: the 4-bit storage of QLoRA, bit for bit as in bitsandbytes.
//
// A weight [O, I] is read row by row in blocks of 64 values. Each block stores its largest
// magnitude, absmax, and for each value the nearest of 16 numbers in [-1, 1], two per byte. Double
// quantisation stores absmax as a byte too: less the mean of all, in blocks of 256, each with an
// fp32 absmax of its own. That is 4.127 bits per value, or 4.5 without it (QLoRA,
// https://arxiv.org/abs/2305.14314, section 3).
//
// Owns: quantised weights as tensors, quantising, dequantising. Does not own: the arithmetic on the
// CPU (nf4_loops.h), files (nf4_files.h). Thread rule: an Nf4Weight does not change after it is
// made; its scratch memory serves one thread at a time.
//
// Shape letters: I in features, O out features, P packed bytes, B blocks, N blocks of blocks.
#pragma once

#include <ATen/core/TensorBody.h>

#include <cstdint>
#include <memory>
#include <utility>

namespace plural::trainer {

class Nf4Scratch;

// A weight for products, valid while this lives. A weight in the scratch memory holds that memory.
class HeldWeight {
 public:
  explicit HeldWeight(at::Tensor weight_OI, Nf4Scratch* scratch = nullptr)
      : weight_OI_(std::move(weight_OI)), scratch_(scratch) {}
  HeldWeight(HeldWeight&& other) noexcept
      : weight_OI_(std::move(other.weight_OI_)), scratch_(std::exchange(other.scratch_, nullptr)) {}
  ~HeldWeight();
  HeldWeight(const HeldWeight&) = delete;
  HeldWeight& operator=(const HeldWeight&) = delete;
  HeldWeight& operator=(HeldWeight&&) = delete;

  const at::Tensor& Tensor() const { return weight_OI_; }

 private:
  at::Tensor weight_OI_;
  Nf4Scratch* scratch_;  // null: the weight has memory of its own
};

// Memory for one dequantised weight, which a model's weights use in turn; it grows to the largest.
class Nf4Scratch {
 public:
  // [rows, columns], uninitialised. Errors: std::logic_error while another weight is held in it.
  HeldWeight Take(std::int64_t rows, std::int64_t columns, const at::TensorOptions& options);

 private:
  friend class HeldWeight;
  at::Tensor bytes_;
  bool held_ = false;
};

inline HeldWeight::~HeldWeight() {
  if (scratch_ != nullptr) scratch_->held_ = false;
}

struct Nf4Weight {
  std::int64_t outputs = 0, inputs = 0;
  at::Tensor packed_P;         // uint8, the first of two values in the high four bits
  at::Tensor absmax_B;         // fp32; with double quantisation uint8, absmax = map[code] * nested + offset
  at::Tensor map;              // fp32 [256], ascending; from here on with double quantisation only
  at::Tensor nested_absmax_N;  // fp32
  float offset = 0.0F;
  std::shared_ptr<Nf4Scratch> scratch;

  bool DoublyQuantized() const { return map.defined(); }
  Nf4Weight To(at::Device device) const;
  std::int64_t Bytes() const;
  // All absmax values, fp32 [B].
  at::Tensor Absmax() const;
  // [O, I] in fp32, fp64 or bf16: the product of value and absmax in fp32, rounded once.
  at::Tensor Dequantized(at::ScalarType dtype) const;
  // The same in the scratch memory, which must outlive the result. Errors: those of
  // Nf4Scratch::Take.
  HeldWeight DequantizedInScratch(at::ScalarType dtype) const;
  // Rows [begin, end) to out[0, (end - begin) I), on the CPU.
  template <class T>
  void DequantizeRows(std::int64_t begin, std::int64_t end, T* out) const;
};

// The bytes of a weight of `values` values, with double quantisation.
std::int64_t Nf4Bytes(std::int64_t values);

// Quantises weight [O, I] of any floating dtype, from its value in fp32. The mean of double
// quantisation is summed in the order of a single thread, so that the bits are the same everywhere.
Nf4Weight QuantizeToNf4(const at::Tensor& weight_OI, bool double_quantization = true);

// Nf4Weight::Dequantized as an expression of ATen operators, for devices without a loop: the same bits. `out`
// is [O, I], contiguous, on the weight's device.
void DequantizeWithAten(const Nf4Weight& weight, const at::Tensor& out_OI);

}  // namespace plural::trainer
