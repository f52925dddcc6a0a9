#include "trainer/commands/doctor.h"

#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <H5public.h>
#include <link.h>
#include <torch/version.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "dist/gpu_driver.h"
#include "trainer/base/error.h"
#include "trainer/base/version.h"
#include "trainer/commands/doctor_speed.h"
#include "trainer/commands/model_options.h"
#include "trainer/ops/cuda_kernels.h"
#include "trainer/plan/process_memory.h"
#include "trainer/plan/usable_cores.h"
#include "trainer/run/device_check.h"

namespace plural::trainer {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;
constexpr double kLeastMemoryGiB = 0.5;

std::string Fixed(double value) {
  char text[64];
  std::snprintf(text, sizeof(text), "%.1f", value);
  return text;
}

std::string CudaVersionText(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

std::string Hdf5Version() {
  unsigned major = 0, minor = 0, patch = 0;
  H5get_libversion(&major, &minor, &patch);
  return std::to_string(major) + "." + std::to_string(minor) + "." + std::to_string(patch);
}

// yaml-cpp states its version nowhere but in its file's name: "libyaml-cpp.so.0.7.0".
std::string YamlVersion() {
  std::string version = "linked in";
  dl_iterate_phdr(
      [](dl_phdr_info* library, std::size_t, void* result) {
        if (std::string_view(library->dlpi_name).find("libyaml-cpp.so") == std::string_view::npos) return 0;
        std::error_code error;
        const std::string name = fs::canonical(library->dlpi_name, error).filename();
        if (const std::size_t at = name.find(".so."); at != std::string::npos) {
          *static_cast<std::string*>(result) = name.substr(at + 4);
        }
        return 1;
      },
      &version);
  return version;
}

bool InPath(const std::string& program) {
  const char* path = std::getenv("PATH");
  const std::string folders = path == nullptr ? "" : path;
  for (std::size_t begin = 0; begin <= folders.size();) {
    const std::size_t end = std::min(folders.find(':', begin), folders.size());
    if (end > begin && access((folders.substr(begin, end - begin) + "/" + program).c_str(), X_OK) == 0)
      return true;
    begin = end + 1;
  }
  return false;
}

// The packages of the Python side that are missing from the virtual environment beside the build.
struct PythonSide {
  bool found = false;
  std::vector<std::string> missing;
};

PythonSide FindPythonSide() {
  PythonSide side;
  std::error_code error;
  const fs::path root = fs::read_symlink("/proc/self/exe", error).parent_path().parent_path();
  side.found = access((root / ".venv/bin/python").c_str(), X_OK) == 0;
  side.missing = {"h5py", "tokenizers", "transformers"};
  for (const auto& python : fs::directory_iterator(root / ".venv/lib", error)) {
    std::erase_if(side.missing, [&](const std::string& package) {
      return fs::exists(python.path() / "site-packages" / package, error);
    });
  }
  return side;
}

// By trying: permission bits say little for root, on read-only file systems and over quota.
bool CanWriteHere() {
  char name[] = ".plural-doctor-XXXXXX";
  const int file = mkstemp(name);
  if (file < 0) return false;
  close(file);
  unlink(name);
  return true;
}

// What each rank sees; gathered, so that rank 0 can speak for all.
json LookAround(const dist::World& world) {
  const dist::GpuDriver driver = dist::ProbeGpuDriver();
  json gpus = json::array();
  for (const auto& device : driver.devices) {
    gpus.push_back(device.name + ", " + Fixed(static_cast<double>(device.memory_bytes) / kGiB) + " GiB");
  }
  const RankSpeed speed = MeasureSpeed(world);
  std::error_code error;
  return {{"host", world.Host()},
          {"local_rank", world.LocalRank()},
          {"plural", Version()},
          {"libtorch", TORCH_VERSION},
          {"mpi", dist::World::LibraryVersion()},
          {"cpu_capability", at::get_cpu_capability()},
          {"threads", at::get_num_threads()},
          {"cores", UsableCores()},
          {"memory_gib", static_cast<double>(AvailableBytes()) / kGiB},
          {"folder", fs::current_path(error).string()},
          {"writable", CanWriteHere()},
          {"driver", driver.cuda_version},
          {"gpus", gpus},
          {"kernels_problem", KernelsProblem()},
          {"cpu_speed", speed.cpu},
          {"gpu_speed", speed.gpu},
          {"gpu_problem", speed.gpu_problem},
          {"cuda_problem", driver.devices.empty() ? "" : dist::NcclProblem()},
          {"nccl_loaded", driver.devices.empty() ? "" : dist::LoadedNcclVersionText()}};
}

// Findings that stop training here, and those that do not, each one line: what, what for, how to mend.
struct Findings {
  std::vector<std::string> faults, notes;
};

void CompareRanks(const std::vector<json>& ranks, Findings& findings) {
  for (const char* key : {"plural", "libtorch", "mpi"}) {
    for (std::size_t rank = 1; rank < ranks.size(); ++rank) {
      if (ranks[rank].at(key) == ranks[0].at(key)) continue;
      findings.faults.push_back(
          "rank " + std::to_string(rank) + " runs " + key + " " + ranks[rank].at(key).get<std::string>() +
          ", rank 0 " + ranks[0].at(key).get<std::string>() + ": start the same build on every machine");
      break;
    }
  }
  for (std::size_t rank = 1; rank < ranks.size(); ++rank) {
    const std::string here = ranks[0].at("nccl_loaded"), there = ranks[rank].at("nccl_loaded");
    if (here.empty() || there.empty() || here == there) continue;
    findings.notes.push_back("rank " + std::to_string(rank) + " loads NCCL " + there + ", rank 0 " + here +
                             ": they may not understand each other; set the same LD_LIBRARY_PATH everywhere");
    break;
  }
  for (std::size_t rank = 1; rank < ranks.size(); ++rank) {
    if (ranks[rank].at("cpu_capability") == ranks[0].at("cpu_capability")) continue;
    findings.notes.push_back(
        "rank " + std::to_string(rank) + " uses " + ranks[rank].at("cpu_capability").get<std::string>() +
        ", rank 0 " + ranks[0].at("cpu_capability").get<std::string>() +
        ": replicas may drift apart; set ATEN_CPU_CAPABILITY to the smaller on all ranks");
    break;
  }
}

void CheckMachines(const std::vector<json>& ranks, Findings& findings) {
  std::map<std::string, std::vector<std::size_t>> machines;
  for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
    machines[ranks[rank].at("host").get<std::string>()].push_back(rank);
    if (!ranks[rank].at("writable").get<bool>()) {
      findings.faults.push_back("rank " + std::to_string(rank) + " cannot write to the current folder " +
                                ranks[rank].at("folder").get<std::string>() +
                                ": runs are saved there; change to a folder of yours");
    }
  }
  for (const auto& [host, members] : machines) {
    const json& first = ranks[members.front()];
    const double memory_gib = first.at("memory_gib");
    if (memory_gib < kLeastMemoryGiB) {
      findings.faults.push_back(host + " has " + Fixed(memory_gib) +
                                " GiB of memory left; training needs at least " + Fixed(kLeastMemoryGiB) +
                                ": end other programs or use another machine");
    }
    int threads = 0, cores = 0;
    for (const std::size_t rank : members) {
      threads += ranks[rank].at("threads").get<int>();
      cores = std::max(cores, ranks[rank].at("cores").get<int>());
    }
    if (threads > cores) {
      findings.notes.push_back(
          host + " runs " + std::to_string(threads) + " threads in " + std::to_string(members.size()) +
          " ranks on " + std::to_string(cores) +
          " cores: set OMP_NUM_THREADS, or start mpirun with --bind-to none or more cores per rank");
    }
  }
}

void CheckGpus(const std::vector<json>& ranks, Findings& findings) {
  const json& first = ranks.front();
  const int driver = first.at("driver");
  if (driver == 0 || first.at("gpus").empty()) {
    findings.notes.push_back(
        std::string(driver == 0 ? "no GPU driver" : "a GPU driver but no GPU to be seen") +
        ": training runs on CPUs; for device: cuda use a machine with NVIDIA GPUs and their driver" +
        (driver == 0 ? "" : ", and look at CUDA_VISIBLE_DEVICES"));
    return;
  }
  const int runtime = dist::CudaRuntimeVersion();
  if (driver < runtime) {
    findings.notes.push_back("the GPU driver serves CUDA " + CudaVersionText(driver) +
                             ", device: cuda needs " + CudaVersionText(runtime) + ": update the driver");
  }
  if (const std::string problem = first.at("cuda_problem"); !problem.empty())
    findings.notes.push_back(problem);
}

// Builds for GPUs are looked at also where no GPU is to be seen: this may be a login node.
void CheckKernels(const std::vector<json>& ranks, Findings& findings) {
  if (!dist::NcclCompiled()) return;
  std::vector<std::string> problems;
  for (const json& rank : ranks) problems.push_back(rank.at("kernels_problem"));
  if (const std::string missing = KernelWarning(problems); !missing.empty())
    findings.notes.push_back(missing);
}

// The speeds of these ranks, without 0, which says that there is no GPU.
std::vector<double> SpeedsOf(const std::vector<json>& ranks, const std::vector<std::size_t>& members,
                             const char* key) {
  std::vector<double> speeds;
  for (const std::size_t rank : members) {
    if (const double speed = ranks[rank].at(key); speed > 0.0) speeds.push_back(speed);
  }
  return speeds;
}

void CheckSpeed(const std::vector<json>& ranks, Findings& findings) {
  std::vector<double> cpu, gpu;
  for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
    cpu.push_back(ranks[rank].at("cpu_speed"));
    gpu.push_back(ranks[rank].at("gpu_speed"));
    if (const std::string problem = ranks[rank].at("gpu_problem"); !problem.empty())
      findings.notes.push_back("rank " + std::to_string(rank) + " computes nothing on a GPU: " + problem);
  }
  std::vector<std::string> slow = {SlowRankNote(cpu, "multiplies")};
  if (std::ranges::min(gpu) > 0.0) slow.push_back(SlowRankNote(gpu, "multiplies on a GPU"));
  std::ranges::copy_if(slow, std::back_inserter(findings.notes),
                       [](const std::string& note) { return !note.empty(); });
}

void CheckTools(Findings& findings) {
  const PythonSide python = FindPythonSide();
  if (!python.found) {
    findings.notes.push_back("no .venv beside the build: `plural prepare` needs it; run launch/setup");
  } else if (!python.missing.empty()) {
    std::string names;
    for (const std::string& package : python.missing) names += " " + package;
    findings.notes.push_back("the .venv lacks" + names + ": `plural prepare` needs them; run launch/setup");
  }
  if (!InPath("mpirun")) {
    findings.notes.push_back(
        "no mpirun in PATH: several ranks need it; install openmpi-bin or load your site's module");
  }
  if (!InPath("sbatch")) {
    findings.notes.push_back("no Slurm (sbatch): only launch/slurm/ needs it, on a cluster's login node");
  }
}

// "0-3,6" for 0 1 2 3 6.
std::string Ranges(const std::vector<std::size_t>& numbers) {
  std::string text;
  for (std::size_t begin = 0; begin < numbers.size();) {
    std::size_t end = begin;
    while (end + 1 < numbers.size() && numbers[end + 1] == numbers[end] + 1) ++end;
    text += (text.empty() ? "" : ",") + std::to_string(numbers[begin]);
    if (end > begin) text += "-" + std::to_string(numbers[end]);
    begin = end + 1;
  }
  return text;
}

void Print(const std::vector<json>& ranks, const dist::World& world, const Findings& findings) {
  const auto line = [](const std::string& name, const std::string& value) {
    std::cout << "  " << name << std::string(name.size() < 12 ? 12 - name.size() : 1, ' ') << value << "\n";
  };
  const json& first = ranks.front();
  std::cout << "plural " << Version() << "\n";
  line("libtorch", TORCH_VERSION);
  line("MPI", dist::World::LibraryVersion() + ", " + dist::World::ThreadLevelName(world.ThreadLevel()));
  line("HDF5", Hdf5Version());
  line("yaml-cpp", YamlVersion());
  const std::string loaded = first.at("nccl_loaded");
  line("NCCL", dist::NcclVersion() + (loaded.empty() ? "" : " compiled, " + loaded + " loaded"));
  line("CUDA", dist::CudaRuntimeVersion() == 0 ? "not compiled"
                                               : "runtime " + CudaVersionText(dist::CudaRuntimeVersion()));
  line("GPU kernels", KernelsProblem().empty() ? "load" : "none");
  line("GPU driver", first.at("driver") == 0 ? "none" : "CUDA " + CudaVersionText(first.at("driver")));

  std::map<std::string, std::vector<std::size_t>> machines;
  for (std::size_t rank = 0; rank < ranks.size(); ++rank) machines[ranks[rank].at("host")].push_back(rank);
  line("ranks", std::to_string(ranks.size()) + " on " + std::to_string(machines.size()) + " machine" +
                    (machines.size() == 1 ? "" : "s"));
  for (const auto& [host, members] : machines) {
    const json& machine = ranks[members.front()];
    std::vector<std::size_t> local;
    for (const std::size_t rank : members) local.push_back(ranks[rank].at("local_rank"));
    std::cout << "    " << host << ": rank " << Ranges(members) << " (local " << Ranges(local)
              << "), a rank has " << machine.at("cores").get<int>() << " cores, uses "
              << machine.at("threads").get<int>() << " of them, "
              << machine.at("cpu_capability").get<std::string>() << ", "
              << SpeedText(SpeedsOf(ranks, members, "cpu_speed")) << " in fp32; "
              << Fixed(machine.at("memory_gib").get<double>()) << " GiB of memory free\n";
    for (const json& gpu : machine.at("gpus")) std::cout << "      GPU " << gpu.get<std::string>() << "\n";
    if (const auto speeds = SpeedsOf(ranks, members, "gpu_speed"); !speeds.empty())
      std::cout << "      a rank's GPU multiplies bf16 at " << SpeedText(speeds) << "\n";
  }

  const char* job = std::getenv("SLURM_JOB_ID");
  line("Slurm", job != nullptr ? "job " + std::string(job) : InPath("sbatch") ? "found" : "none");
  line("Python", FindPythonSide().found ? "found" : "none");

  for (const std::string& fault : findings.faults) std::cout << "missing: " << fault << "\n";
  for (const std::string& note : findings.notes) std::cout << "note: " << note << "\n";
  const auto computing =
      std::ranges::count_if(ranks, [](const json& rank) { return rank.at("gpu_speed") > 0.0; });
  std::cout << Verdict(!findings.faults.empty(), ranks.size(), static_cast<std::size_t>(computing))
            << std::endl;
}

}  // namespace

void AddDoctorOptions(CLI::App& /*command*/, DoctorOptions&) {}

int RunDoctor(const DoctorOptions&, const dist::World& world, dist::Collectives& collectives) {
  SetThreads(0, world);   // as every other command does
  collectives.Barrier();  // before the measurement
  std::vector<json> ranks;
  for (const std::string& text : collectives.AllGather(LookAround(world).dump()))
    ranks.push_back(json::parse(text));
  Findings findings;
  CompareRanks(ranks, findings);
  CheckMachines(ranks, findings);
  CheckGpus(ranks, findings);
  CheckKernels(ranks, findings);
  CheckSpeed(ranks, findings);
  CheckTools(findings);
  if (world.Rank() == 0) Print(ranks, world, findings);
  return static_cast<int>(findings.faults.empty() ? ExitCode::kDone : ExitCode::kWrongResources);
}

}  // namespace plural::trainer
