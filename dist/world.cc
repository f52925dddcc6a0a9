#include "dist/world.h"

#include <mpi.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <iostream>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "dist/error.h"

namespace plural::dist {
namespace {

constexpr std::chrono::seconds kAbortDeadline{5};

// The number in environment variable `name`, or -1.
long EnvironmentNumber(const char* name) {
  const char* text = std::getenv(name);
  if (text == nullptr || *text == '\0') return -1;
  char* end = nullptr;
  const long value = std::strtol(text, &end, 10);
  return *end == '\0' ? value : -1;
}

struct LauncherClaim {
  long size = -1;  // no launcher was found
  std::string variable;
};

// The number of ranks according to the launcher. mpirun's own variable comes first: inside a Slurm
// job its ranks inherit Slurm's variables, which then describe mpirun's daemons. SLURM_NTASKS is no
// evidence, since a batch script with many tasks may start a single process on purpose; only a step
// (srun) is.
LauncherClaim ReadLauncherClaim() {
  if (const long size = EnvironmentNumber("OMPI_COMM_WORLD_SIZE"); size >= 0) {
    return {size, "OMPI_COMM_WORLD_SIZE"};
  }
  if (const long size = EnvironmentNumber("PMI_SIZE"); size >= 0) return {size, "PMI_SIZE"};
  if (EnvironmentNumber("SLURM_STEP_ID") >= 0 && EnvironmentNumber("SLURM_PROCID") >= 0) {
    return {EnvironmentNumber("SLURM_STEP_NUM_TASKS"), "SLURM_STEP_NUM_TASKS"};
  }
  return {};
}

// COLLECTIVE over `machine`.
int CountSharers(MPI_Comm machine, int size) {
  cpu_set_t mine;
  // Fails on a machine with more cores than the set holds; all its ranks then count as sharers.
  if (sched_getaffinity(0, sizeof(mine), &mine) != 0) std::memset(&mine, 0xff, sizeof(mine));
  std::vector<cpu_set_t> all(static_cast<std::size_t>(size));
  MPI_Allgather(&mine, sizeof(mine), MPI_BYTE, all.data(), sizeof(mine), MPI_BYTE, machine);
  return static_cast<int>(std::count_if(all.begin(), all.end(), [&](const cpu_set_t& other) {
    cpu_set_t common;
    CPU_AND(&common, &mine, &other);
    return CPU_COUNT(&common) > 0;
  }));
}

}  // namespace

int World::LaunchedRanks() { return static_cast<int>(std::max(1L, ReadLauncherClaim().size)); }

bool World::HasLauncher() { return ReadLauncherClaim().size >= 0; }

int World::LaunchedRank() {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID"}) {
    if (const long rank = EnvironmentNumber(name); rank >= 0) return static_cast<int>(rank);
  }
  return 0;
}

World::World(int* argc, char*** argv, std::shared_ptr<Pulse> pulse)
    : uncaught_at_start_(std::uncaught_exceptions()),
      pulse_(pulse ? std::move(pulse) : std::make_shared<Pulse>()) {
  int initialized = 0;
  MPI_Initialized(&initialized);
  if (initialized) throw std::logic_error("World was made twice; MPI can be initialised once per process");
  const LauncherClaim claim = ReadLauncherClaim();
  // Without a launcher, Open MPI 4 would start a daemon, which needs its programs in PATH and
  // serves only a process that later spawns others. Without the daemon all such processes of a user
  // share one session folder, which one that ends may remove under one that starts: none is made.
  // Transports for other ranks would listen on every interface of the machine, and there are none.
  if (claim.size < 0) {
    setenv("OMPI_MCA_ess_singleton_isolated", "1", /*overwrite=*/0);
    setenv("OMPI_MCA_orte_create_session_dirs", "0", /*overwrite=*/0);
    setenv("OMPI_MCA_btl", "self", /*overwrite=*/0);
  }
  MPI_Init_thread(argc, argv, MPI_THREAD_SERIALIZED, &thread_level_);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
  MPI_Comm_size(MPI_COMM_WORLD, &size_);

  if (claim.size > 1 && size_ == 1) {
    MPI_Finalize();  // a world of one has no peers to wait for; the destructor does not run
    throw ResourceError("the launcher started " + std::to_string(claim.size) + " processes (" +
                        claim.variable + ") but MPI made a world of one rank for each of them, so they " +
                        "would not work together; start with mpirun of the MPI that plural is built with (" +
                        LibraryVersion() + "), also inside a Slurm job");
  }
  if (thread_level_ < MPI_THREAD_SERIALIZED) {
    const std::string granted = ThreadLevelName(thread_level_);
    MPI_Finalize();
    throw ResourceError("MPI grants thread level " + granted + " but MPI_THREAD_SERIALIZED is needed; " +
                        "use an MPI library built with thread support (found: " + LibraryVersion() + ")");
  }

  MPI_Comm machine = MPI_COMM_NULL;
  MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &machine);
  MPI_Comm_rank(machine, &local_rank_);
  MPI_Comm_size(machine, &local_size_);
  ranks_on_these_cores_ = CountSharers(machine, local_size_);
  MPI_Comm_free(&machine);

  char name[MPI_MAX_PROCESSOR_NAME] = {};
  int length = 0;
  MPI_Get_processor_name(name, &length);
  host_.assign(name, static_cast<std::size_t>(length));
}

World::~World() {
  if (std::uncaught_exceptions() > uncaught_at_start_) return;
  pulse_->Enter(Phase::kEnd);
  MPI_Finalize();
}

std::string World::ThreadLevelName(int level) {
  switch (level) {
    case MPI_THREAD_SINGLE:
      return "MPI_THREAD_SINGLE";
    case MPI_THREAD_FUNNELED:
      return "MPI_THREAD_FUNNELED";
    case MPI_THREAD_SERIALIZED:
      return "MPI_THREAD_SERIALIZED";
    case MPI_THREAD_MULTIPLE:
      return "MPI_THREAD_MULTIPLE";
  }
  return "unknown thread level " + std::to_string(level);
}

std::string World::LibraryVersion() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING] = {};
  int length = 0;
  MPI_Get_library_version(text, &length);
  const std::string version(text, static_cast<std::size_t>(length));
  // Open MPI: "Open MPI v4.1.4, package: Debian Open MPI, ident: ...". MPICH: many lines.
  return version.substr(0, version.find_first_of(",\n"));
}

void World::Abort(int code, int ranks) {
  // MPI_Abort may itself block, on a daemon that is gone or on a lock of a thread that hangs.
  try {
    std::thread([code] {
      std::this_thread::sleep_for(kAbortDeadline);
      _exit(code);
    }).detach();
  } catch (const std::system_error&) {  // no thread could be made: abort without a deadline
  }
  std::cout.flush();
  std::fflush(nullptr);
  int finalized = 0, is_main = 0;
  MPI_Finalized(&finalized);
  if (finalized) _exit(code);
  MPI_Is_thread_main(&is_main);
  if (ranks == 1 && is_main) {
    MPI_Finalize();  // no peers to end: exit quietly, the caller has reported the reason
  } else {
    MPI_Abort(MPI_COMM_WORLD, code);
  }
  _exit(code);
}

}  // namespace plural::dist
