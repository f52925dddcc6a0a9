// Settings of the libraries that compute on the CPU.
//
// Owns: what must be set before they are first used. Does not own: the number of threads
// (commands/model_options.h). Thread rule: call it first of all, while there is one thread.
#pragma once

namespace plural::trainer {

// oneDNN keeps the code it made for each shape of a multiply, 1,024 of them. A pass of a tree has a row count
// of its own: its code serves all layers, forward and back, and never again, but lies among the tensors (on
// the 56 M model, peft: 750 MiB at the peak with 1,024, 615 MiB with 24, the same time). Variables that are
// set already stay as they are.
void LimitLibraryCaches();

// Tensors of a pass come and go a few megabytes at a time. Memory that the C library gives back to the
// operating system in between is cleared and mapped again page by page when a multiply writes its result
// there: 3 % of a step on the 56 M model with its peak the same. What is freed stays with the process
// instead. GLIBC_TUNABLES, if set, stay as they are.
void KeepFreedMemory();

}  // namespace plural::trainer
