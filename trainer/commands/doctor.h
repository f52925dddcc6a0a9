// `plural doctor`: what this installation has, what it lacks, what for, and how to get it.
//
// Owns: the report. Does not own: any repair. Thread rule: main thread. COLLECTIVE.
#pragma once

#include "dist/collectives.h"
#include "dist/world.h"

namespace CLI {
class App;
}

namespace plural::trainer {

struct DoctorOptions {};

void AddDoctorOptions(CLI::App& command, DoctorOptions& options);

// Prints the report on rank 0. Returns, on every rank, 0 when training on CPUs can work here, else 69:
// a folder that cannot be written, less than 512 MiB of memory left on a machine, or ranks that run
// different versions.
int RunDoctor(const DoctorOptions& options, const dist::World& world, dist::Collectives& collectives);

}  // namespace plural::trainer
