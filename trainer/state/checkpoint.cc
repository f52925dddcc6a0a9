#include "trainer/state/checkpoint.h"

#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "data/error.h"
#include "data/sha256.h"
#include "trainer/base/error.h"
#include "trainer/base/file_io.h"
#include "trainer/base/json_io.h"
#include "trainer/base/printable.h"
#include "trainer/files/safetensors.h"
#include "trainer/state/checkpoint_tensors.h"
#include "trainer/state/sharded_state.h"

namespace plural::trainer {
namespace {

namespace fs = std::filesystem;

constexpr const char* kTrainable = "trainable.safetensors";
constexpr const char* kOptimizer = "optimizer.safetensors";
constexpr const char* kState = "state.json";
constexpr const char* kManifest = "manifest.json";
constexpr std::chrono::milliseconds kReadAgain{500};

// 200 for "step-00000200", nothing for any other name.
std::optional<std::int64_t> StepOf(const std::string& name) {
  constexpr std::size_t kPrefix = 5, kDigits = 8;
  if (name.compare(0, kPrefix, "step-") != 0 || name.size() < kPrefix + kDigits || name.size() > 20 ||
      name.find_first_not_of("0123456789", kPrefix) != std::string::npos) {
    return std::nullopt;
  }
  return std::stoll(name.substr(kPrefix));
}

// One line about a checkpoint of a format that this program cannot know; "" for all others, damaged ones,
// too.
std::string OfALaterFormat(const fs::path& folder) {
  try {
    const nlohmann::json manifest = ReadJsonFile(folder / kManifest);
    const fs::path state_path = folder / kState;
    const auto version = [](const nlohmann::json& json) {
      return json.value("format_version", std::int64_t{0});
    };
    const std::int64_t of_manifest =
        manifest.value("format", "") == "plural-checkpoint" ? version(manifest) : 0;
    // A number that damage has changed says nothing.
    std::int64_t of_state = 0;
    if (of_manifest == 1 && manifest.at("files").at(kState).at("sha256") == data::Sha256OfFile(state_path)) {
      of_state = version(ReadJsonFile(state_path));
    }
    if (std::max(of_manifest, of_state) <= 1) return "";
    return folder.string() + ": a checkpoint of format version " +
           std::to_string(std::max(of_manifest, of_state)) +
           "; this program reads version 1. Go on with the program that wrote it, or give the run another "
           "name";
  } catch (const ExitError&) {
  } catch (const data::MissingInput&) {
  } catch (const nlohmann::json::exception&) {
  }
  return "";
}

// Sizes first: they cost nothing and find a truncated file at once.
void VerifyManifest(const fs::path& folder) {
  const fs::path path = folder / kManifest;
  const nlohmann::json manifest = ReadJsonFile(path);
  if (manifest.value("format", "") != "plural-checkpoint" || manifest.value("format_version", 0) != 1) {
    throw ExitError(ExitCode::kBadData, path.string() + ": not a plural-checkpoint manifest of version 1");
  }
  if (manifest.value("step", std::int64_t{-1}) != StepOf(folder.filename().string())) {
    throw ExitError(ExitCode::kBadData, path.string() + ": of another step than its folder");
  }
  const auto files = manifest.find("files");
  for (const bool hashing : {false, true}) {
    for (const char* name : {kTrainable, kOptimizer, kState}) {
      if (files == manifest.end() || !files->is_object() || !files->contains(name) ||
          !files->at(name).is_object() || !files->at(name).value("sha256", nlohmann::json()).is_string() ||
          !files->at(name).value("size_bytes", nlohmann::json()).is_number_integer()) {
        throw ExitError(ExitCode::kBadData, path.string() + ": no size and hash of " + name);
      }
      const nlohmann::json& entry = files->at(name);
      const fs::path file = folder / name;
      if (!hashing) {
        std::error_code error;
        const std::uintmax_t size = fs::file_size(file, error);
        if (error) throw ExitError(ExitCode::kMissingInput, file.string() + ": " + error.message());
        if (size != entry["size_bytes"].get<std::uintmax_t>()) {
          throw ExitError(ExitCode::kBadData, file.string() + ": " + std::to_string(size) +
                                                  " bytes; the manifest says " + entry["size_bytes"].dump());
        }
      } else if (const std::string sha256 = data::Sha256OfFile(file); entry["sha256"] != sha256) {
        throw ExitError(ExitCode::kBadData, file.string() + ": SHA-256 " + sha256 + "; the manifest says " +
                                                entry["sha256"].get<std::string>());
      }
    }
  }
}

void RequireConsistent(const fs::path& folder, std::int64_t step, std::int64_t updates,
                       std::int64_t skipped) {
  const std::string where = (folder / kState).string();
  if (StepOf(folder.filename().string()) != step) {
    throw ExitError(ExitCode::kBadData,
                    where + ": step " + std::to_string(step) + " does not belong into this folder");
  }
  if (updates + skipped != step) {
    throw ExitError(ExitCode::kBadData,
                    where + ": optimizer.updates and guard.skipped_steps do not add up to position.step");
  }
}

// Each parameter has both moments, and there is nothing else.
void RequireMoments(const fs::path& folder) {
  const SafetensorsReader parameters(folder / kTrainable), moments(folder / kOptimizer);
  const auto fail = [&](const std::string& what) {
    throw ExitError(ExitCode::kBadData, Printable(moments.Path().string() + ": " + what));
  };
  if (moments.Entries().size() != 2 * parameters.Entries().size()) {
    fail(std::to_string(moments.Entries().size()) + " tensors, not two for each of " +
         std::to_string(parameters.Entries().size()) + " parameters");
  }
  for (const auto& [name, parameter] : parameters.Entries()) {
    for (const char* suffix : {kFirstMoment, kSecondMoment}) {
      const auto moment = moments.Entries().find(name + suffix);
      if (moment == moments.Entries().end()) fail("tensor '" + name + suffix + "' is missing");
      if (moment->second.shape != parameter.shape) {
        fail("tensor '" + moment->first + "' has another shape than its parameter");
      }
    }
  }
}

// A checkpoint that is whole and has other parameters than the model: nothing is wrong with it.
class OfAnotherModel : public ExitError {
  using ExitError::ExitError;
};

std::string FillTensorsOf(const fs::path& folder, TrainState& state) {
  try {
    FillTensors(SafetensorsReader(folder / kTrainable), state.parameters.Tensors());
    if (!state.shards) FillTensors(SafetensorsReader(folder / kOptimizer), OptimizerTensors(state));
    return state.shards ? HashWithMomentsOf(folder / kOptimizer, state) : ReplicaHash(state);
  } catch (const ExitError& error) {
    if (error.Code() != ExitCode::kBadData) throw;
    throw OfAnotherModel(ExitCode::kBadData,
                         std::string(error.what()) +
                             "; the checkpoint is whole, and was made with another base model (model.path, "
                             "model.config): put that back, or give the run another name");
  }
}

void ReadCheckpoint(const fs::path& folder, TrainState& state) {
  VerifyManifest(folder);
  const fs::path state_path = folder / kState;
  const nlohmann::json json = ReadJsonFile(state_path);
  StateFromJson(json, state_path.string(), state);
  RequireConsistent(folder, state.position.step, state.optimizer.Updates(), state.spikes.skipped_steps);
  // The end-to-end check: memory holds the same tensors as when they were saved.
  const std::string found = FillTensorsOf(folder, state);
  if (json.value("replica_sha256", "") != found) {
    throw ExitError(ExitCode::kBadData,
                    state_path.string() + ": the tensors read do not have the hash saved");
  }
}

template <typename Read>
void AsExitErrors(const fs::path& folder, const Read& read) {
  try {
    read();
  } catch (const data::MissingInput& error) {
    throw ExitError(ExitCode::kMissingInput, error.what());
  } catch (const nlohmann::json::exception& error) {  // a value of another type
    throw ExitError(ExitCode::kBadData, folder.string() + ": " + error.what());
  }
}

bool HasItsFiles(const fs::path& folder) {
  return std::ranges::all_of(std::array{kTrainable, kOptimizer, kState, kManifest}, [&](const char* name) {
    std::error_code error;
    const fs::file_type type = fs::status(folder / name, error).type();
    return type == fs::file_type::regular || type == fs::file_type::none;  // none: that cannot be read either
  });
}

// A file that cannot be read now may be read in a moment, as where a file server changes.
void LoadPatiently(const fs::path& folder, TrainState& state) {
  try {
    LoadCheckpoint(folder, state);
  } catch (const ExitError& error) {
    if (error.Code() != ExitCode::kMissingInput || !HasItsFiles(folder)) throw;
    std::this_thread::sleep_for(kReadAgain);
    LoadCheckpoint(folder, state);
  }
}

void RemoveAfterRename(const fs::path& folder) {
  const fs::path trash = folder.parent_path() / (".trash-" + folder.filename().string());
  std::error_code ignored;
  fs::remove_all(trash, ignored);
  fs::rename(folder, trash, ignored);
  fs::remove_all(trash, ignored);
}

}  // namespace

fs::path MomentsFile(const fs::path& folder) { return folder / kOptimizer; }

void LoadCheckpoint(const fs::path& folder, TrainState& state) {
  AsExitErrors(folder, [&] { ReadCheckpoint(folder, state); });
}

SavedState CheckCheckpoint(const fs::path& folder, Sums epoch_sums) {
  SavedState saved;
  AsExitErrors(folder, [&] {
    if (const std::string later = OfALaterFormat(folder); !later.empty()) {
      throw ExitError(ExitCode::kBadData, later);
    }
    VerifyManifest(folder);
    const fs::path path = folder / kState;
    saved = SavedStateFromJson(ReadJsonFile(path), path.string(), std::move(epoch_sums));
    RequireConsistent(folder, saved.position.step, saved.updates, saved.spikes.skipped_steps);
    RequireMoments(folder);
  });
  return saved;
}

Snapshot SnapshotOf(const TrainState& state, const std::string& replica_sha256, bool copies) {
  Snapshot snapshot{.step = state.position.step,
                    .parameters = state.parameters.Tensors(),
                    .moments = {},
                    .json = {},
                    .metrics_bytes = state.position.metrics_bytes};
  if (!state.shards) snapshot.moments = OptimizerTensors(state);
  nlohmann::json json = StateToJson(state);
  json["replica_sha256"] = replica_sha256;
  snapshot.json = json.dump(2) + "\n";
  if (copies) {
    const c10::NoGradGuard no_gradient;
    for (auto* tensors : {&snapshot.parameters, &snapshot.moments}) {
      for (auto& [name, tensor] : *tensors)
        tensor = tensor.detach().to(at::kCPU, tensor.scalar_type(), false, true);
    }
  }
  return snapshot;
}

Checkpoints::Checkpoints(fs::path folder, std::int64_t keep) : folder_(std::move(folder)), keep_(keep) {}

fs::path Checkpoints::StepFolder(std::int64_t step) const {
  char name[32];
  std::snprintf(name, sizeof(name), "step-%08lld", static_cast<long long>(step));
  return folder_ / name;
}

std::optional<Identity> Checkpoints::NewestIdentity() const {
  const std::vector<std::int64_t> steps = Steps();
  if (steps.empty()) return std::nullopt;
  const fs::path path = StepFolder(steps.back()) / kState;
  try {
    return IdentityFromJson(ReadJsonFile(path), path.string());
  } catch (const ExitError&) {  // a finished run may have lost its checkpoints
    return std::nullopt;
  }
}

std::vector<fs::path> Checkpoints::Entries() const {
  std::vector<fs::path> entries;
  std::error_code error;
  for (fs::directory_iterator entry(folder_, error), last; !error && entry != last; entry.increment(error)) {
    entries.push_back(entry->path());
  }
  // Taken for a folder without checkpoints, it would be trained from the start.
  if (error && error != std::errc::no_such_file_or_directory) {
    throw ExitError(ExitCode::kMissingInput,
                    folder_.string() + ": the checkpoints cannot be listed: " + error.message() +
                        "; make the folder readable, or remove it to train from the start");
  }
  return entries;
}

std::vector<std::int64_t> Checkpoints::Steps() const {
  std::vector<std::int64_t> steps;
  for (const fs::path& entry : Entries()) {
    if (const auto step = StepOf(entry.filename().string())) steps.push_back(*step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

void Checkpoints::RemoveLeftovers() const {
  for (const fs::path& entry : Entries()) {
    std::error_code ignored;  // what stays costs only space
    if (IsLeftover(entry)) fs::remove_all(entry, ignored);
  }
}

void Checkpoints::Save(const Snapshot& snapshot) const {
  const fs::path target = StepFolder(snapshot.step);
  try {
    MakeFolders(folder_);
    PendingFolder pending(target);
    nlohmann::json files;
    const auto record = [&](const char* name, std::int64_t size_bytes, const std::string& sha256) {
      files[name] = {{"size_bytes", size_bytes}, {"sha256", sha256}};
    };
    const auto trainable = WriteSafetensors(pending.Path() / kTrainable, snapshot.parameters);
    record(kTrainable, trainable.size_bytes, trainable.sha256);
    const auto moments = snapshot.sharded_moments != nullptr
                             ? WriteMoments(pending.Path() / kOptimizer, *snapshot.sharded_moments)
                             : WriteSafetensors(pending.Path() / kOptimizer, snapshot.moments);
    record(kOptimizer, moments.size_bytes, moments.sha256);
    WriteFileDurably(pending.Path() / kState, snapshot.json);
    record(kState, static_cast<std::int64_t>(snapshot.json.size()), data::Sha256OfBytes(snapshot.json));
    const nlohmann::json manifest = {
        {"format", "plural-checkpoint"}, {"format_version", 1}, {"step", snapshot.step}, {"files", files}};
    WriteFileDurably(pending.Path() / kManifest, manifest.dump(2) + "\n");
    pending.Commit(PendingFolder::IfExists::kReplace);
  } catch (const ExitError& error) {
    throw ExitError(ExitCode::kCheckpointWrite, "checkpoint " + target.string() + ": " + error.what());
  } catch (const fs::filesystem_error& error) {
    throw ExitError(ExitCode::kCheckpointWrite, "checkpoint " + target.string() + ": " + error.what());
  }
  // Old ones are removed only now that the new one is durable.
  const std::vector<std::int64_t> steps = Steps();
  for (std::size_t i = 0; i + static_cast<std::size_t>(keep_) < steps.size(); ++i) {
    if (steps[i] != snapshot.best_step) RemoveAfterRename(StepFolder(steps[i]));
  }
}

Checkpoints::Loaded Checkpoints::LoadNewest(TrainState& state, const Checkpoints* mirror) const {
  Loaded loaded;
  std::vector<std::pair<std::int64_t, fs::path>> found;
  for (const std::int64_t step : Steps()) found.emplace_back(step, StepFolder(step));
  try {
    for (const std::int64_t step : mirror == nullptr ? std::vector<std::int64_t>() : mirror->Steps()) {
      found.emplace_back(step, mirror->StepFolder(step));
    }
  } catch (const ExitError& error) {
    const std::string what = std::string("checkpoint.mirror: ") + error.what();
    if (found.empty()) throw ExitError(error.Code(), what);
    loaded.warnings.push_back(what);
  }
  std::ranges::stable_sort(found, std::greater<>(), [](const auto& one) { return one.first; });
  bool unreadable = false;
  for (const auto& [step, folder] : found) {
    if (const std::string later = OfALaterFormat(folder); !later.empty()) {
      throw ExitError(ExitCode::kBadData, later);
    }
    try {
      LoadPatiently(folder, state);
      loaded.step = step;
      loaded.folder = folder;
      return loaded;
    } catch (const OfAnotherModel&) {
      throw;
    } catch (const ExitError& error) {
      if (error.Code() == ExitCode::kMissingInput && HasItsFiles(folder)) {  // an error of the disk
        unreadable = true;
        loaded.warnings.push_back("checkpoint cannot be read, passed over and left as it is: " +
                                  std::string(error.what()));
        continue;
      }
      const fs::path bad = folder.string() + ".bad-" + std::to_string(std::time(nullptr));
      std::error_code reason;
      fs::rename(folder, bad, reason);
      loaded.warnings.push_back("checkpoint is not whole, " +
                                (reason ? "and could not be set aside (" + reason.message() + ")"
                                        : "set aside as " + bad.string()) +
                                ": " + error.what());
    }
  }
  std::string bad = found.empty() ? "" : loaded.warnings.front();
  for (const fs::path& entry : Entries()) {
    const std::string name = entry.filename().string();
    if (bad.empty() && name.find(".bad-") != std::string::npos) bad = "set aside earlier: " + name;
  }
  if (bad.empty()) return loaded;
  throw ExitError(unreadable ? ExitCode::kMissingInput : ExitCode::kBadData,
                  folder_.string() + ": checkpoints exist but none of them is whole (" + bad +
                      "); restore one, or remove the folder to train from the start");
}

}  // namespace plural::trainer
