// Settings of the libraries that compute, and of their memory.
//
// Owns: what must be set before they are first used. Does not own: the number of threads
// (commands/model_options.h). Thread rule: call it first of all, while there is one thread.
#pragma once

namespace plural::trainer {

// oneDNN keeps the code it made for each shape of a multiply, 1,024 of them. A pass of a tree has a row count
// of its own: its code serves all layers, forward and back, and never again, but lies among the tensors (on
// the 56 M model, poexft: 750 MiB at the peak with 1,024, 615 MiB with 24, the same time). Variables that are
// set already stay as they are.
void LimitLibraryCaches();

// Row counts change with every pass, and with them the sizes of tensors: on a GPU libtorch's allocator grows
// and shrinks its segments in place of keeping blocks of each size. PYTORCH_ALLOC_CONF, if set, stays as it
// is.
void LetGpuMemoryGrow();

// Tensors of a pass come and go a few megabytes at a time. Memory that the C library gives back to the
// operating system in between is cleared and mapped again page by page when a multiply writes its result
// there: 3 % of a step on the 56 M model with its peak the same. What is freed stays with the process
// instead. GLIBC_TUNABLES, if set, stay as they are.
void KeepFreedMemory();

}  // namespace plural::trainer
