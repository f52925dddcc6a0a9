// A linear layer y = x W^T + b with an optional LoRA adapter: y += scale (dropout(x) A^T) B^T.
//
// Owns: the tensors of one layer and its forward. Does not own: names, files. Thread rule: one thread.
//
// Products take the dtype of x. Weights and factors may be stored in another one (trained
// parameters in fp32 beside bf16 activations); they are converted for each product, and their
// gradients have the stored dtype.
//
// Shape letters: R rows, I in features, O out features, K LoRA rank.
#pragma once

#include <ATen/core/TensorBody.h>

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <vector>

#include "trainer/ops/dropout.h"
#include "trainer/ops/nf4.h"

namespace plural::trainer {

struct CudaKernels;

struct LoraFactors {
  at::Tensor a_KI;
  at::Tensor b_OK;
  double scale = 1.0;    // alpha / rank
  double dropout = 0.0;  // on the adapter's input, see dropout.h
};

struct Linear {
  at::Tensor weight_OI;
  LoraFactors lora;        // undefined tensors: no adapter
  at::Tensor bias_O = {};  // undefined: none
  // The weight where it is stored in NF4: weight_OI has then its shape alone, on the meta device.
  std::shared_ptr<const Nf4Weight> nf4 = {};

  bool HasLora() const { return lora.a_KI.defined(); }
  // The weight for products in `dtype`: itself if it is stored so, else a copy; for NF4 a copy in
  // the scratch memory of the model, which holds one weight at a time. Forward and backward read
  // the weight through this only. Errors: those of Nf4Scratch::Take.
  HeldWeight Weight(at::ScalarType dtype) const;
  // x_RI -> [R, O]. Saves x once; computes no gradient for a frozen weight.
  at::Tensor Forward(const at::Tensor& x_RI, const Dropout& dropout = {}) const;
  // The same without a gradient; for bf16 the result is fp32, not rounded. No row's result depends
  // on the other rows.
  at::Tensor ForwardUnrounded(const at::Tensor& x_RI) const;
};

// Where the weights of layers with one input are one matrix, each layer's own a view of its rows: frozen
// ones, in full.
struct JoinedLinear {
  at::Tensor weight_OI;  // undefined: there is none
  at::Tensor bias_O;     // undefined: none
};

// Several layers with one input, which is saved once and whose gradient is summed in place. Element
// l is Forward(x_RI) of the l-th layer, with dropout.At(l). `kernels`: as in ops/dropout_cuda.h.
std::vector<at::Tensor> ForwardTogether(std::initializer_list<const Linear*> layers, const at::Tensor& x_RI,
                                        const Dropout& dropout = {}, const CudaKernels* kernels = nullptr);

// The same results side by side, [R, O of all], from one product; the layers' adapters are added to it, each
// to its columns.
at::Tensor ForwardJoined(std::initializer_list<const Linear*> layers, const JoinedLinear& joined,
                         const at::Tensor& x_RI, const Dropout& dropout = {},
                         const CudaKernels* kernels = nullptr);

}  // namespace plural::trainer
