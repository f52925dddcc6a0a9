// Options and checks that every command with a model shares.
//
// Owns: --dtype and --threads, a warning. Does not own: loading (files/load_model.h), whether a corpus fits
// (files/corpus_fit.h). Thread rule: main thread.
#pragma once

#include <ATen/core/TensorBody.h>

#include <cstdint>
#include <string>

#include "dist/world.h"
#include "trainer/model/decoder.h"

namespace CLI {
class App;
}

namespace plural::trainer {

void AddComputeOptions(CLI::App& command, std::string& dtype, std::int64_t& threads);

// Compute threads of this rank; 0: OMP_NUM_THREADS, or the cores that it may use, shared among the ranks that
// may use them.
void SetThreads(std::int64_t threads, const dist::World& world);

// Rank 0 says so where `model` has latents: figures of a prompt without one are not what it was trained for.
void WarnOfLatents(const Decoder& model, const dist::World& world);

}  // namespace plural::trainer
