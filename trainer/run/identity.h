// What a run is bound to: the identity of its inputs, as the ranks see them and as an earlier start saw them.
//
// Owns: which inputs are hashed by which rank, the comparisons over ranks and with what was saved. Does not
// own: the struct and its form on disk (state/train_state.h), the recipe's keys (run_folder.h). Thread rule:
// main thread.
#pragma once

#include <string>
#include <vector>

#include "data/corpus.h"
#include "dist/collectives.h"
#include "dist/world.h"
#include "trainer/recipe/recipe.h"
#include "trainer/state/train_state.h"

namespace plural::trainer {

// True on the lowest rank of those that have this file: the same file of the same machine. Such a rank reads
// the file whole for all of them. COLLECTIVE.
bool ReadsForOthers(const std::string& path, const dist::World& world, dist::Collectives& collectives);

// SHA-256 of the corpus's bytes: its sidecar's, which its opening has verified, or that of the file.
std::string ContentSha256(const data::Corpus& corpus);

// What a resume compares of the corpus: its sidecar's hash, or its fingerprint. The file is not read whole.
std::string IdentityOfCorpus(const data::Corpus& corpus);

// What the run is bound to, as far as this rank knows: one rank per machine hashes the weights, the others
// leave them empty. `validation`: null without data.validation.
Identity IdentityOf(const Recipe& recipe, const data::Corpus& corpus, const data::Corpus* validation,
                    const dist::World& world);
// The same of a run that is finished, as far as its inputs are still there: `gone` gets the keys of those
// that are not.
Identity IdentityOfInputs(const Recipe& recipe, std::vector<std::string>& gone);

// Errors: ExitError(kBadRecipe) naming what is no longer what the finished run was made with.
void RequireUnchangedInputs(const Recipe& recipe, const Identity& now, const Identity& saved);
// Errors: ExitError(kBadData) naming what is no longer what the checkpoint was made with.
void RequireSameIdentity(const Identity& now, const Identity& saved, const std::string& checkpoint);

}  // namespace plural::trainer
