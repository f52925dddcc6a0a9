#include "trainer/version.h"

namespace plural::trainer {

const char* Version() { return PLURAL_VERSION; }

}  // namespace plural::trainer
