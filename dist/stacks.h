// Stacks: where every thread of this process is.
//
// Owns: the signal that makes a thread write its stack down. Does not own: when that is wanted (watchdog.h).
// Thread rule: one call at a time, from any thread; the others go on after some microseconds.
#pragma once

#include <string>

namespace plural::dist {

// Loads what a signal handler may not load. Called once, before WriteStacks, by the main thread.
void PrepareStacks();

// "thread 4711 plural (S): futex_wait <- ..." with one line per frame. A thread that does not answer within
// half a second (in the kernel, or stopped) is named with its state alone.
std::string StacksOfThreads();

}  // namespace plural::dist
