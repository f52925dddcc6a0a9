// Attention of a token tree on a GPU: the entry points. The work of a block is in tree_attention.h and
// tree_attention_backward.h.
#include "trainer/kernels/cuda/block.h"
#include "trainer/kernels/cuda/module.h"
#include "trainer/kernels/cuda/tree_attention_start.h"

namespace plural::trainer {
namespace {

// Two blocks to a multiprocessor, so that one computes while the other waits for memory.
template <class Program>
__global__ void __launch_bounds__(Program::kThreads, 2) RunTree(const TreeAttentionArguments a) {
#if __CUDA_ARCH__ >= 800
  extern __shared__ __align__(16) char shared[];
  typename Program::Registers registers;
  gpu::DeviceBlock<typename Program::Registers> block(registers, shared);
  Program::Run(block, a, static_cast<int>(blockIdx.x), static_cast<int>(blockIdx.y));
#endif
}

struct Launch {
  cudaStream_t stream;

  template <class Program>
  int Start(int x, int y, const TreeAttentionArguments& a) const {
    const cudaError_t error =
        cudaFuncSetAttribute(RunTree<Program>, cudaFuncAttributeMaxDynamicSharedMemorySize, Program::kBytes);
    if (error != cudaSuccess) return error;
    const dim3 blocks(static_cast<unsigned>(x), static_cast<unsigned>(y));
    RunTree<Program><<<blocks, Program::kThreads, Program::kBytes, stream>>>(a);
    return cudaGetLastError();
  }
};

int AttributeOf(cudaDeviceAttr attribute) {
  int device = 0, value = 0;
  if (cudaGetDevice(&device) != cudaSuccess) return 0;
  return cudaDeviceGetAttribute(&value, attribute, device) == cudaSuccess ? value : 0;
}

}  // namespace

extern "C" int plural_tree_attention_serves(KernelType type, int dim) {
  if (TreeWidthOf(dim) == 0 || type == KernelType::kFp64) return 0;
  const int bytes = gpu::WithTreeShape(type, dim, gpu::TreeSharedBytes{});
  return AttributeOf(cudaDevAttrComputeCapabilityMajor) >= 8 &&
                 AttributeOf(cudaDevAttrMaxSharedMemoryPerBlockOptin) >= bytes
             ? 1
             : 0;
}

extern "C" int plural_tree_attention(const TreeAttentionArguments& arguments, void* stream) {
  return gpu::StartTreeAttention(arguments, Launch{static_cast<cudaStream_t>(stream)});
}

extern "C" int plural_tree_attention_backward(const TreeAttentionArguments& arguments, void* stream) {
  return gpu::StartTreeAttentionBackward(arguments, Launch{static_cast<cudaStream_t>(stream)});
}

}  // namespace plural::trainer
