#include "trainer/base/version.h"

namespace plural {

const char* Version() { return PLURAL_VERSION; }

}  // namespace plural
