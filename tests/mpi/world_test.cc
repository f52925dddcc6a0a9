// The world on real ranks, and how a job ends: tests on one rank start whole jobs of this program.
#include "dist/world.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "dist/error.h"
#include "tests/mpi/mpi_world.h"

extern char** environ;

namespace plural {
namespace {

using dist::MakeMpiCollectives;
using testing::World;

// Checks `value` against what mpirun says, where it does.
void ExpectAsLaunched(int value, const char* variable) {
  const char* text = std::getenv(variable);
  if (text != nullptr) {
    EXPECT_EQ(value, std::atoi(text)) << variable;
  }
}

TEST(World, KnowsItsPlace) {
  EXPECT_GE(World().Rank(), 0);
  EXPECT_LT(World().Rank(), World().Size());
  ExpectAsLaunched(World().Rank(), "OMPI_COMM_WORLD_RANK");
  ExpectAsLaunched(World().Size(), "OMPI_COMM_WORLD_SIZE");
  ExpectAsLaunched(World().LocalRank(), "OMPI_COMM_WORLD_LOCAL_RANK");
  ExpectAsLaunched(World().LocalSize(), "OMPI_COMM_WORLD_LOCAL_SIZE");
  EXPECT_FALSE(World().Host().empty());

  const auto collectives = MakeMpiCollectives(World());
  const auto ranks = collectives->AllGather(std::to_string(World().Rank()));
  EXPECT_EQ(std::set<std::string>(ranks.begin(), ranks.end()).size(),
            static_cast<std::size_t>(World().Size()));
}

// The tests' ranks are not bound: all may run on every core.
TEST(World, CountsTheRanksThatShareItsCores) { EXPECT_EQ(World().RanksOnTheseCores(), World().LocalSize()); }

TEST(World, NamesThreadLevels) {
  EXPECT_TRUE(dist::World::ThreadLevelName(World().ThreadLevel()) == "MPI_THREAD_SERIALIZED" ||
              dist::World::ThreadLevelName(World().ThreadLevel()) == "MPI_THREAD_MULTIPLE");
  EXPECT_EQ(dist::World::ThreadLevelName(99), "unknown thread level 99");
  EXPECT_EQ(dist::World::LibraryVersion().find('\n'), std::string::npos);
}

TEST(World, IsMadeOnce) { EXPECT_THROW(dist::World(nullptr, nullptr), std::logic_error); }

// --- Jobs ------------------------------------------------------------------------------------------

struct JobEnd {
  int exit_code = -1;  // 128 + n when ended by signal n
  double seconds = 0.0;
};

// Runs test `name` of this program as a job of its own; `ranks` 0: without mpirun.
JobEnd RunJob(int ranks, const std::string& name, const std::vector<std::string>& extra_environment = {},
              const std::string& binding = "none") {
  const std::string self = std::filesystem::read_symlink("/proc/self/exe");
  std::vector<std::string> words;
  if (ranks > 0) {
    words = {"mpirun", "-np", std::to_string(ranks), "--map-by", ":OVERSUBSCRIBE", "--bind-to", binding};
  }
  words.insert(words.end(), {self, "--gtest_also_run_disabled_tests", "--gtest_filter=" + name});

  // A job inside a rank must not inherit the outer job's identity.
  std::vector<std::string> environment = extra_environment;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    const bool of_outer_job = text.starts_with("PMIX_") || text.starts_with("PMI_") ||
                              text.starts_with("ORTE_") || text.starts_with("SLURM_") ||
                              (text.starts_with("OMPI_") && !text.starts_with("OMPI_ALLOW_RUN_AS_ROOT"));
    if (!of_outer_job) environment.push_back(text);
  }
  environment.push_back("OMPI_MCA_btl_vader_single_copy_mechanism=none");

  const auto pointers = [](std::vector<std::string>& strings) {
    std::vector<char*> result;
    for (std::string& text : strings) result.push_back(text.data());
    result.push_back(nullptr);
    return result;
  };
  const std::vector<char*> arguments = pointers(words), variables = pointers(environment);
  const auto begin = std::chrono::steady_clock::now();
  const pid_t child = fork();
  if (child == 0) {
    const int null = open("/dev/null", O_RDWR);
    for (int stream = 0; stream < 3; ++stream) dup2(null, stream);
    execvpe(arguments[0], arguments.data(), variables.data());
    _exit(127);
  }
  // A job that hangs is a failure to be reported, not waited for.
  const auto deadline = begin + std::chrono::seconds(60);
  int status = 0;
  while (waitpid(child, &status, WNOHANG) == 0) {
    if (std::chrono::steady_clock::now() > deadline) kill(child, SIGKILL);
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  JobEnd end;
  end.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  end.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return end;
}

// What one rank of a job does while the others wait for it in a collective. Run by name, see below.
TEST(Job, DISABLED_SharesNoCore) { EXPECT_EQ(World().RanksOnTheseCores(), 1); }
TEST(Job, DISABLED_Passes) { MakeMpiCollectives(World())->Barrier(); }

TEST(Job, DISABLED_LastRankAborts) {
  const auto collectives = MakeMpiCollectives(World());
  if (World().Rank() == World().Size() - 1) World().Abort(75);
  collectives->Barrier();
}

TEST(Job, DISABLED_OtherThreadAborts) {
  const auto collectives = MakeMpiCollectives(World());
  if (World().Rank() == 0) std::thread([] { World().Abort(76); }).detach();
  at::Tensor tensor = at::zeros({1 << 20});
  if (World().Rank() != World().Size() - 1) collectives->AllReduceSum(tensor)->Wait();
  std::this_thread::sleep_for(std::chrono::minutes(10));
}

// The exception unwinds collectives whose thread waits for peers that never come.
TEST(Job, DISABLED_RankOneThrows) {
  const auto collectives = MakeMpiCollectives(World());
  at::Tensor tensor = at::zeros({1 << 20});
  if (World().Rank() == 1) {
    const auto pending = collectives->AllReduceSum(tensor);
    throw std::runtime_error("thrown on purpose");
  }
  std::this_thread::sleep_for(std::chrono::minutes(10));
}

TEST(Job, DISABLED_LeavesWithExceptionInFlight) {
  try {
    const auto collectives = MakeMpiCollectives(World());
    if (World().Rank() == 0) {
      const auto pending = collectives->AllReduceSum(at::zeros({1 << 20}));
      throw std::runtime_error("thrown on purpose");
    }
    collectives->Barrier();
    collectives->Barrier();
  } catch (const std::runtime_error&) {
    World().Abort(79);
  }
}

// The exception passes World's destructor on its way out of the program.
TEST(Job, DISABLED_ThrowsThroughWorld) {
  struct Leaver {
    ~Leaver() { const_cast<dist::World&>(World()).~World(); }
  };
  if (World().Rank() == 0) {
    try {
      const Leaver leaver;
      throw std::runtime_error("thrown on purpose");
    } catch (const std::runtime_error&) {
      _exit(71);  // as a program ends by an exit code, without MPI_Finalize
    }
  }
  MakeMpiCollectives(World())->Barrier();
}

#define ONLY_ON_ONE_RANK() \
  if (World().Size() != 1) GTEST_SKIP() << "jobs are started from one rank"

TEST(Job, EndsWithZeroWhenAllPass) {
  ONLY_ON_ONE_RANK();
  EXPECT_EQ(RunJob(0, "Job.DISABLED_Passes").exit_code, 0);
  EXPECT_EQ(RunJob(3, "Job.DISABLED_Passes").exit_code, 0);
}

TEST(Job, BoundRanksShareNoCore) {
  ONLY_ON_ONE_RANK();
  cpu_set_t cores;
  ASSERT_EQ(sched_getaffinity(0, sizeof(cores), &cores), 0);
  if (CPU_COUNT(&cores) < 2) GTEST_SKIP() << "two ranks cannot be apart on one core";
  EXPECT_EQ(RunJob(2, "Job.DISABLED_SharesNoCore", {}, "core").exit_code, 0);
  EXPECT_NE(RunJob(2, "Job.DISABLED_SharesNoCore").exit_code, 0);
}

// Without World::Abort these jobs end at the deadline of RunJob, with 137.
TEST(Job, EndsWithTheCodeOfTheRankThatAborts) {
  ONLY_ON_ONE_RANK();
  EXPECT_EQ(RunJob(3, "Job.DISABLED_LastRankAborts").exit_code, 75);
  EXPECT_EQ(RunJob(0, "Job.DISABLED_LastRankAborts").exit_code, 75);
}

TEST(Job, EndsWhenAnotherThreadAborts) {
  ONLY_ON_ONE_RANK();
  EXPECT_EQ(RunJob(3, "Job.DISABLED_OtherThreadAborts").exit_code, 76);
}

TEST(Job, EndsWhenOneRankThrows) {
  ONLY_ON_ONE_RANK();
  EXPECT_EQ(RunJob(3, "Job.DISABLED_RankOneThrows").exit_code, 70);
  EXPECT_EQ(RunJob(2, "Job.DISABLED_LeavesWithExceptionInFlight").exit_code, 79);
  EXPECT_EQ(RunJob(2, "Job.DISABLED_ThrowsThroughWorld").exit_code, 71);
}

TEST(Job, RefusesSilentSingletons) {
  ONLY_ON_ONE_RANK();
  EXPECT_EQ(RunJob(0, "Job.DISABLED_Passes", {"PMI_SIZE=4"}).exit_code, 69);  // another MPI's mpirun
  const std::vector<std::string> step{"SLURM_STEP_ID=0", "SLURM_PROCID=1", "SLURM_STEP_NUM_TASKS=2"};
  EXPECT_EQ(RunJob(0, "Job.DISABLED_Passes", step).exit_code, 69);
  // One process on purpose, in the batch script of a job with many tasks.
  EXPECT_EQ(
      RunJob(0, "Job.DISABLED_Passes", {"SLURM_NTASKS=4", "SLURM_JOB_ID=7", "SLURM_PROCID=0"}).exit_code, 0);
}

}  // namespace
}  // namespace plural
