// Models and adapters by their name on the Hugging Face Hub.
//
// Owns: which folder of the Hub's local cache a name stands for. Does not own: downloading (`hf download`
// does it, once, before a run), what is in the folder (hf_folder.h). Thread rule: free of state.
//
// The cache is laid out as huggingface_hub documents it: models--ORG--NAME/refs/REVISION holds a commit, and
// models--ORG--NAME/snapshots/COMMIT the files, as links into blobs/.
#pragma once

#include <filesystem>
#include <string>

namespace plural::trainer {

// HF_HUB_CACHE, else HF_HOME/hub, else XDG_CACHE_HOME/huggingface/hub, else ~/.cache/huggingface/hub.
std::filesystem::path HubCache();

// A Hub name in two parts: "ORG/NAME", and the revision where "ORG/NAME@REVISION" gives one. Anything else, a
// folder that is there among them, stays whole.
struct NameAndRevision {
  std::string name, revision;
};
NameAndRevision SplitRevision(const std::string& given);

// The folder that `given` means: itself where there is such a folder (of a model's own folder in the cache
// the snapshot of its revision main), else the snapshot of the Hub name "ORG/NAME" or "ORG/NAME@REVISION" (a
// branch, tag or commit; main). Nothing is ever downloaded.
// `where`: the option or recipe key, for the message. Errors: ExitError(kMissingInput) with the command that
// downloads, or with the snapshots that are there instead.
std::string HubFolder(const std::string& given, const std::string& where);

// "; `hf download NAME` completes this copy in the Hub cache" where `folder` is a snapshot of one, else "".
std::string DownloadHint(const std::filesystem::path& folder);

}  // namespace plural::trainer
